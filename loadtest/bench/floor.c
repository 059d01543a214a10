// floor: what the kernel alone charges for an SMTP dialogue.
//
// A blind responder: one epoll loop, one recv and one send for each flight of the client, no parsing beyond the first
// letter of each line, the message dropped as it comes. No SMTP server can do with fewer system calls, so its CPU time
// per message is the limit that a server is compared with.
//
//   cc -O2 -o floor floor.c && ./floor PORT          (127.0.0.1 only)
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_DESCRIPTORS 65536
#define END_OF_DATA "\r\n.\r\n"
#define END_LENGTH 5

static char in_data[MAX_DESCRIPTORS], line_open[MAX_DESCRIPTORS];
static char tail[MAX_DESCRIPTORS][END_LENGTH]; // what could be the beginning of the end of data
static char in[END_LENGTH + (1 << 18)], out[1 << 16];
static size_t out_length;

static void put(const char *text) {
    size_t length = strlen(text);
    if (out_length + length < sizeof out) {
        memcpy(out + out_length, text, length);
        out_length += length;
    }
}

// Returns whether the client leaves.
static int command(int fd, char letter) {
    switch (letter | 32) {
    case 'e':
        put("250-floor\r\n250-PIPELINING\r\n250-SIZE 33554432\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n");
        return 0;
    case 'd':
        put("354 go\r\n");
        in_data[fd] = 1;
        memset(tail[fd], 0, END_LENGTH);
        return 0;
    case 'q':
        put("221 bye\r\n");
        return 1;
    default:
        put("250 ok\r\n");
        return 0;
    }
}

static void take_in(int epoll, int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_DESCRIPTORS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        in_data[fd] = line_open[fd] = 0;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        send(fd, "220 floor ESMTP\r\n", 17, MSG_NOSIGNAL);
    }
}

// Skips data; returns what is behind its end, or the end of what there is.
static char *skip_data(int fd, char *from, char *end) {
    memcpy(from - END_LENGTH, tail[fd], END_LENGTH);
    char *found = memmem(from - END_LENGTH, end - from + END_LENGTH, END_OF_DATA, END_LENGTH);
    if (!found) {
        memcpy(tail[fd], end - END_LENGTH, END_LENGTH);
        return end;
    }
    in_data[fd] = 0;
    put("250 2.0.0 ok\r\n");
    return found + END_LENGTH;
}

static void serve(int fd) {
    ssize_t length = recv(fd, in + END_LENGTH, sizeof in - END_LENGTH, 0);
    if (length <= 0) {
        close(fd);
        return;
    }
    char *at = in + END_LENGTH, *end = at + length;
    int leaves = 0;
    out_length = 0;
    while (at < end && !leaves) {
        if (in_data[fd]) {
            at = skip_data(fd, at, end);
            continue;
        }
        char *line_end = memchr(at, '\n', end - at);
        if (!line_open[fd])
            leaves = command(fd, *at);
        line_open[fd] = !line_end;
        at = line_end ? line_end + 1 : end;
    }
    if (out_length)
        send(fd, out, out_length, MSG_NOSIGNAL);
    if (leaves)
        close(fd);
}

int main(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 2525, one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) {
        perror("floor");
        return 1;
    }
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                take_in(epoll, listener);
            else
                serve(events[i].data.fd);
        }
    }
}
