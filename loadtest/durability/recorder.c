/* Records what a process does to the files below a directory, in the order in which it was done.
 *
 * Preloaded (LD_PRELOAD) into a server. RECORDER_ROOT is the directory, RECORDER_LOG the file that the records are
 * appended to, each with one write, so those of all threads and processes are in one order. A record of a sync is
 * written when the sync has returned: what it covers lies in front of it.
 *
 * A record: its kind, then two inode numbers, an offset and two lengths, then a name and data. See powercut.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FD 4096

struct head {
    uint64_t kind, inode, other, offset, name_length, data_length;
};

static int log_fd = -1;
static const char *root;
static size_t root_length;
static unsigned char tracked[MAX_FD];

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void start(void) {
    if (root) return;
    const char *path = getenv("RECORDER_LOG");
    const char *directory = getenv("RECORDER_ROOT");
    if (!path || !directory) _exit(99);
    int fd = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3500); /* out of the way of code that closes or counts descriptors */
    REAL(close)(fd);
    root_length = strlen(directory);
    root = directory;
}

static void record(char kind, uint64_t inode, uint64_t other, uint64_t offset, const char *name,
                   const struct iovec *data, int count) {
    static __thread char *buffer;
    static __thread size_t room;
    size_t name_length = name ? strlen(name) : 0, data_length = 0;
    for (int i = 0; i < count; i++) data_length += data[i].iov_len;
    struct head head = {(uint64_t)kind, inode, other, offset, name_length, data_length};
    size_t total = sizeof head + name_length + data_length;
    if (total > room) buffer = realloc(buffer, room = total * 2);
    memcpy(buffer, &head, sizeof head);
    memcpy(buffer + sizeof head, name, name_length);
    char *end = buffer + sizeof head + name_length;
    for (int i = 0; i < count; i++) {
        memcpy(end, data[i].iov_base, data[i].iov_len);
        end += data[i].iov_len;
    }
    if (REAL(write)(log_fd, buffer, total) != (ssize_t)total) _exit(98);
}

static int inside(const char *path) {
    return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

static uint64_t inode_of(int fd) {
    struct stat found;
    return fstat(fd, &found) ? 0 : found.st_ino;
}

/* The absolute path of a name that is relative to a directory's descriptor; 0 if it is not below the root. */
static int resolve(int dirfd, const char *name, char *path) {
    start();
    char base[PATH_MAX] = "";
    if (name[0] != '/') {
        char link[64];
        snprintf(link, sizeof link, dirfd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dirfd);
        ssize_t length = readlink(link, base, sizeof base - 2);
        if (length < 0) return 0;
        base[length] = '/';
        base[length + 1] = 0;
    }
    if (snprintf(path, PATH_MAX, "%s%s", base, name) >= PATH_MAX) return 0;
    return inside(path);
}

/* Splits a path; the inode of its parent. */
static uint64_t parent_of(char *path, const char **name) {
    char *slash = strrchr(path, '/');
    struct stat found;
    *slash = 0;
    *name = slash + 1;
    uint64_t inode = stat(path, &found) ? 0 : found.st_ino;
    return inode;
}

static int opened(int fd, int existed, int flags, char *path) {
    if (fd < 0 || fd >= MAX_FD) return fd;
    int keep = errno;
    const char *name;
    tracked[fd] = 1;
    if (!existed) {
        uint64_t parent = parent_of(path, &name);
        record('c', parent, inode_of(fd), 0, name, NULL, 0);
    } else if (flags & O_TRUNC) {
        record('t', inode_of(fd), 0, 0, NULL, NULL, 0);
    }
    errno = keep;
    return fd;
}

static int open_at(int dirfd, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    int ours = resolve(dirfd, name, path);
    int existed = !ours || !(flags & O_CREAT) || faccessat(dirfd, name, F_OK, 0) == 0;
    int fd = REAL(openat)(dirfd, name, flags, mode);
    if (fd >= 0 && fd < MAX_FD) tracked[fd] = 0;
    return ours ? opened(fd, existed, flags, path) : fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *name, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, name, flags | O_LARGEFILE, mode); }
int openat(int dirfd, const char *name, int flags, ...) { MODE(flags) return open_at(dirfd, name, flags, mode); }
int openat64(int dirfd, const char *name, int flags, ...) { MODE(flags) return open_at(dirfd, name, flags, mode); }

static int is_tracked(int fd) { return fd >= 0 && fd < MAX_FD && tracked[fd]; }

int close(int fd) {
    if (fd >= 0 && fd < MAX_FD) tracked[fd] = 0;
    return REAL(close)(fd);
}

static ssize_t wrote(int fd, ssize_t done, off_t offset, const struct iovec *data, int count) {
    int keep = errno;
    if (done > 0) {
        struct iovec part[64];
        size_t left = done;
        int used = 0;
        for (; used < count && used < 64 && left; used++) {
            part[used] = data[used];
            if (part[used].iov_len > left) part[used].iov_len = left;
            left -= part[used].iov_len;
        }
        record('w', inode_of(fd), 0, offset, NULL, part, used);
    }
    errno = keep;
    return done;
}

ssize_t write(int fd, const void *octets, size_t count) {
    if (!is_tracked(fd)) return REAL(write)(fd, octets, count);
    off_t offset = lseek(fd, 0, SEEK_CUR);
    struct iovec data = {(void *)octets, count};
    return wrote(fd, REAL(write)(fd, octets, count), offset, &data, 1);
}

ssize_t writev(int fd, const struct iovec *data, int count) {
    if (!is_tracked(fd)) return REAL(writev)(fd, data, count);
    off_t offset = lseek(fd, 0, SEEK_CUR);
    return wrote(fd, REAL(writev)(fd, data, count), offset, data, count);
}

ssize_t pwrite(int fd, const void *octets, size_t count, off_t offset) {
    ssize_t done = REAL(pwrite)(fd, octets, count, offset);
    struct iovec data = {(void *)octets, count};
    return is_tracked(fd) ? wrote(fd, done, offset, &data, 1) : done;
}

ssize_t pwrite64(int fd, const void *octets, size_t count, off64_t offset) { return pwrite(fd, octets, count, offset); }

int ftruncate(int fd, off_t length) {
    int done = REAL(ftruncate)(fd, length);
    if (!done && is_tracked(fd)) record('t', inode_of(fd), 0, length, NULL, NULL, 0);
    return done;
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

static int synced(int fd, int done) {
    if (!done && is_tracked(fd)) record('s', inode_of(fd), 0, 0, NULL, NULL, 0);
    return done;
}

int fsync(int fd) { return synced(fd, REAL(fsync)(fd)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)(fd)); }

static int remove_at(int dirfd, const char *name, int flags) {
    char path[PATH_MAX];
    int ours = resolve(dirfd, name, path);
    int done = REAL(unlinkat)(dirfd, name, flags);
    if (!done && ours) {
        const char *last;
        uint64_t parent = parent_of(path, &last);
        record('u', parent, 0, 0, last, NULL, 0);
    }
    return done;
}

int unlink(const char *name) { return remove_at(AT_FDCWD, name, 0); }
int unlinkat(int dirfd, const char *name, int flags) { return remove_at(dirfd, name, flags); }
int rmdir(const char *name) { return remove_at(AT_FDCWD, name, AT_REMOVEDIR); }

static int rename_at(int from, const char *old, int to, const char *new) {
    char source[PATH_MAX], target[PATH_MAX];
    int ours = resolve(from, old, source) & resolve(to, new, target);
    int done = REAL(renameat)(from, old, to, new);
    if (!done && ours) {
        const char *old_name, *new_name;
        uint64_t old_parent = parent_of(source, &old_name), new_parent = parent_of(target, &new_name);
        struct iovec data = {(void *)new_name, strlen(new_name)};
        record('r', old_parent, new_parent, 0, old_name, &data, 1);
    }
    return done;
}

int rename(const char *old, const char *new) { return rename_at(AT_FDCWD, old, AT_FDCWD, new); }
int renameat(int from, const char *old, int to, const char *new) { return rename_at(from, old, to, new); }

static int make_directory_at(int dirfd, const char *name, mode_t mode) {
    char path[PATH_MAX];
    int ours = resolve(dirfd, name, path);
    int done = REAL(mkdirat)(dirfd, name, mode);
    if (!done && ours) {
        struct stat found;
        const char *last;
        if (stat(path, &found)) _exit(97);
        uint64_t inode = found.st_ino, parent = parent_of(path, &last);
        record('d', parent, inode, 0, last, NULL, 0);
    }
    return done;
}

int mkdir(const char *name, mode_t mode) { return make_directory_at(AT_FDCWD, name, mode); }
int mkdirat(int dirfd, const char *name, mode_t mode) { return make_directory_at(dirfd, name, mode); }
