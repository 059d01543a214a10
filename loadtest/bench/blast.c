// blast: an SMTP load generator that measures what a client sees.
//
//   cc -O2 -o blast blast.c
//   ./blast PORT --messages N [--sessions 20] [--size 5120] [--per-session 1] [--recipients 1] [--pipeline] [--bdat]
//
// 127.0.0.1 only. It stops by itself after N messages; with exit 1 at the first reply that it did not expect; with exit 2
// when nothing came for 30 s. EHLO, then for each message MAIL, RCPT..., DATA and the body, one command a round trip.
// --pipeline sends the envelope in one write (RFC 2920), --bdat the body as one chunk (RFC 3030).
//
// Prints one JSON object: messages/s, its own CPU time, and the latency of a message in microseconds, from the first
// octet of MAIL to the reply behind the body: p50, p99, p999, max.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAIL_LINE "MAIL FROM:<sender@example.org>\r\n"
#define RCPT_LINE "RCPT TO:<recipient@example.org>\r\n"
#define DATA_LINE "DATA\r\n"
#define PATIENCE 30000 // milliseconds

static int port, sessions = 20, size = 5120, per_session = 1, recipients = 1, pipeline, bdat;
static long total = 1000, started, finished;
static char *body, *envelope;
static size_t body_length, envelope_length;
static uint32_t *latencies; // microseconds
static int epoll;

enum phase { BANNER, EHLO, MAIL, RCPT, DATA, BODY, QUIT };
enum fate { OPEN, AGAIN, OVER };

typedef struct {
    int fd, left, recipients_left;
    enum phase phase;
    const char *unsent;
    size_t unsent_length;
    double began;
    char line[1024];
    size_t line_length;
} client;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void die(client *c, const char *why) {
    fprintf(stderr, "blast: %s (phase %d): %.*s\n", why, c->phase, (int)c->line_length, c->line);
    exit(1);
}

static void watch(client *c, int operation) {
    struct epoll_event event = {.events = EPOLLIN | (c->unsent_length ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll, operation, c->fd, &event);
}

static void send_rest(client *c) {
    while (c->unsent_length) {
        ssize_t n = send(c->fd, c->unsent, c->unsent_length, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN)
                break;
            die(c, strerror(errno));
        }
        c->unsent += n;
        c->unsent_length -= n;
    }
}

static void say(client *c, const char *text, size_t length) {
    c->unsent = text;
    c->unsent_length = length;
    send_rest(c);
    if (c->unsent_length)
        watch(c, EPOLL_CTL_MOD);
}

static void dial(client *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->phase = BANNER;
    c->line_length = c->unsent_length = 0;
    c->left = per_session;
    if (c->fd < 0 || connect(c->fd, (void *)&address, sizeof address))
        die(c, strerror(errno));
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    watch(c, EPOLL_CTL_ADD);
}

static void next_message(client *c) {
    if (c->left == 0 || started >= total) {
        c->phase = QUIT;
        say(c, "QUIT\r\n", 6);
        return;
    }
    c->left--;
    started++;
    c->recipients_left = recipients;
    c->began = now();
    c->phase = MAIL;
    if (pipeline)
        say(c, envelope, envelope_length);
    else
        say(c, MAIL_LINE, strlen(MAIL_LINE));
}

static void next_recipient(client *c) {
    c->phase = RCPT;
    if (!pipeline)
        say(c, RCPT_LINE, strlen(RCPT_LINE));
}

static void send_body(client *c) {
    c->phase = BODY;
    if (!(bdat && pipeline)) // there it is part of the envelope's flight
        say(c, body, body_length);
}

static void envelope_done(client *c) {
    if (bdat) {
        send_body(c);
        return;
    }
    c->phase = DATA;
    if (!pipeline)
        say(c, DATA_LINE, strlen(DATA_LINE));
}

static enum fate quit(client *c) {
    close(c->fd);
    if (started >= total)
        return OVER;
    dial(c);
    return AGAIN;
}

static enum fate reply(client *c, int code) {
    static const int expected[] = {220, 250, 250, 250, 354, 250, 221};
    if (code != expected[c->phase] && !(c->phase == RCPT && code == 251))
        die(c, "an unexpected reply");
    switch (c->phase) {
    case BANNER:
        c->phase = EHLO;
        say(c, "EHLO load.example\r\n", 19);
        break;
    case EHLO:
        next_message(c);
        break;
    case MAIL:
        next_recipient(c);
        break;
    case RCPT:
        if (--c->recipients_left)
            next_recipient(c);
        else
            envelope_done(c);
        break;
    case DATA:
        send_body(c);
        break;
    case BODY:
        latencies[finished++] = (uint32_t)(now() - c->began);
        next_message(c);
        break;
    case QUIT:
        return quit(c);
    }
    return OPEN;
}

static enum fate hear(client *c, const char *octets, ssize_t length) {
    for (ssize_t i = 0; i < length; i++) {
        if (c->line_length < sizeof c->line)
            c->line[c->line_length++] = octets[i];
        if (octets[i] != '\n')
            continue;
        if (c->line_length < 5 || !strchr(" -\r", c->line[3]))
            die(c, "not a reply");
        if (c->line[3] != '-') {
            enum fate fate = reply(c, atoi(c->line));
            if (fate != OPEN)
                return fate;
        }
        c->line_length = 0;
    }
    return OPEN;
}

// Returns whether the client is done for good.
static int serve(client *c, uint32_t events) {
    static char in[65536];
    if (events & EPOLLOUT && c->unsent_length) {
        send_rest(c);
        watch(c, EPOLL_CTL_MOD);
    }
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return 0;
    ssize_t length = recv(c->fd, in, sizeof in, 0);
    if (length < 0 && errno == EAGAIN)
        return 0;
    if (length <= 0)
        die(c, length ? strerror(errno) : "the server closed the connection");
    return hear(c, in, length) == OVER;
}

static void read_options(int argc, char **argv) {
    port = atoi(argv[1]);
    for (int i = 2; i < argc; i++) {
        char *option = argv[i];
        if (!strcmp(option, "--pipeline")) {
            pipeline = 1;
            continue;
        }
        if (!strcmp(option, "--bdat")) {
            bdat = 1;
            continue;
        }
        long value = i + 1 < argc ? atol(argv[++i]) : 0;
        if (!strcmp(option, "--messages"))
            total = value;
        else if (!strcmp(option, "--sessions"))
            sessions = value;
        else if (!strcmp(option, "--size"))
            size = value;
        else if (!strcmp(option, "--per-session"))
            per_session = value;
        else if (!strcmp(option, "--recipients"))
            recipients = value;
        else {
            fprintf(stderr, "blast: unknown option %s\n", option);
            exit(2);
        }
    }
    if (sessions > total)
        sessions = total;
}

// The message in lines of 80 octets, and the flights that hold it.
static void write_flights(void) {
    char *text = malloc(size + 256);
    size_t n = sprintf(text, "From: <sender@example.org>\r\nTo: <recipient@example.org>\r\nSubject: load\r\n\r\n");
    while ((int)n + 80 < size) {
        memset(text + n, 'x', 78);
        memcpy(text + n + 78, "\r\n", 2);
        n += 80;
    }
    while ((int)n + 2 < size)
        text[n++] = 'x';
    text[n++] = '\r';
    text[n++] = '\n';
    body = malloc(n + 64);
    body_length = bdat ? sprintf(body, "BDAT %zu LAST\r\n", n) : 0;
    memcpy(body + body_length, text, n);
    body_length += n;
    if (!bdat)
        body_length += sprintf(body + body_length, ".\r\n");
    envelope = malloc(256 + strlen(RCPT_LINE) * recipients + body_length);
    envelope_length = sprintf(envelope, MAIL_LINE);
    for (int i = 0; i < recipients; i++)
        envelope_length += sprintf(envelope + envelope_length, RCPT_LINE);
    if (bdat) {
        memcpy(envelope + envelope_length, body, body_length);
        envelope_length += body_length;
    } else
        envelope_length += sprintf(envelope + envelope_length, DATA_LINE);
    free(text);
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t percentile(double share) { return latencies[(long)((finished - 1) * share)]; }

static void report(double seconds) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    qsort(latencies, finished, sizeof *latencies, compare);
    printf("{\"messages\": %ld, \"seconds\": %.3f, \"rate\": %.1f, \"client_cpu_us\": %.1f, ", finished, seconds,
           finished / seconds, cpu * 1e6 / finished);
    printf("\"p50_us\": %u, \"p99_us\": %u, \"p999_us\": %u, \"max_us\": %u}\n", percentile(.5), percentile(.99),
           percentile(.999), percentile(1));
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: blast PORT --messages N [options]; see the top of blast.c\n");
        return 2;
    }
    read_options(argc, argv);
    write_flights();
    latencies = malloc(sizeof *latencies * (total + 1));
    epoll = epoll_create1(0);
    client *clients = calloc(sessions, sizeof *clients);
    double began = now();
    for (int i = 0; i < sessions; i++)
        dial(&clients[i]);
    struct epoll_event events[512];
    for (int open = sessions; open;) {
        int count = epoll_wait(epoll, events, 512, PATIENCE);
        if (count == 0) {
            fprintf(stderr, "blast: nothing came for 30 s; %ld of %ld messages done\n", finished, total);
            return 2;
        }
        for (int i = 0; i < count; i++)
            open -= serve(events[i].data.ptr, events[i].events);
    }
    report((now() - began) / 1e6);
    return 0;
}
