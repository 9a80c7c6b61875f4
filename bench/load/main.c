/* The load: N WebSocket clients and one publisher in one thread, told what to do by lines on stdin.
 *
 *   connect N [KIND [TOPICS]]    have N clients: handshake, and the greetings that the server sends of itself
 *   subscribe [KIND [TOPICS]]    each client that has not yet done so says what it wants and waits for the replies
 *   keep N                       reset all connections but N
 *   run BURST EVENTS             publish EVENTS events, BURST at a time; the next burst when all clients have the last
 *   pace RATE EVENTS             publish EVENTS events, RATE a second, whatever has become of those before
 *   day ALL OWN TOPICS SECONDS   ALL events a second for all, OWN a second for one topic after the other of TOPICS
 *   navigate ALL OWN PERIOD SECONDS   meanwhile each client replaces its own topic once in PERIOD seconds
 *   stall NTH                    each NTH client reads no more
 *   thaw                         those read again; says what has become of them
 *   storm MISSED RATE WINDOW     all clients are cut, MISSED events happen, all come back, WINDOW at once; RATE a second go on
 *   quit
 *
 * Each is answered by one line of JSON. KIND is `topic` (clients hear the topic of all), `own` (that and one of TOPICS
 * of their own) or `idle` (only a topic of their own). Every event has a number and a text that follows from the number:
 * each client's messages are checked for loss, repetition, order, address and, byte for byte, content.
 */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE = 64, PUBLISHER_ID = MAX_CLIENTS + 1, STDIN_ID };
int patience = 30; /* seconds without any progress after which a command is given up */
static const long none = 0;
static int epoll, quitting;

double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

int connected(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval most = {.tv_sec = patience};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    return fd;
}

void send_all(int fd, const char *data, size_t size) {
    for (int tries = 0; size && tries < 100000; tries++) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0) die("send");
        data += sent;
        size -= (size_t)sent;
    }
}

void watch(int fd, uint32_t id) {
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = id};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
}

void unwatch(int fd) {
    if (epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL)) die("epoll_ctl");
}

/* Handle what comes in during `seconds`, at the most; returns how much that was. */
int turn(double seconds) {
    static struct epoll_event events[4096];
    int n = epoll_wait(epoll, events, 4096, (int)(seconds * 1000));
    for (int i = 0; i < n; i++) {
        uint32_t id = events[i].data.u32;
        if (id == PUBLISHER_ID) take_answers();
        else if (id < MAX_CLIENTS && clients[id].state != CLOSED) receive(&clients[id]);
    }
    return n;
}

/* Handle what comes in until both counts are down to nothing. Returns 0 if a client is lost or nothing comes any more. */
int until_none(const int *wanted, const long *wanted_too) {
    double last = now();
    while (*wanted > 0 || *wanted_too > 0) {
        int before = *wanted;
        long before_too = *wanted_too;
        turn(0.5);
        if (gone) return 0;
        if (*wanted != before || *wanted_too != before_too) last = now();
        else if (now() - last > patience) return 0;
    }
    return 1;
}

static uint32_t own_of(int client, uint32_t own_topics) {
    return (uint32_t)client * (uint32_t)repeats % (own_topics ? own_topics : UINT32_MAX);
}

static void answer_clients(double start) {
    printf("{\"clients\": %d, \"waiting\": %d, \"gone\": %ld, \"damaged\": %ld, \"seconds\": %.3f}\n", count, waiting, gone,
           damaged, now() - start);
}

static void connect_clients(int wanted, enum kind kind, uint32_t own_topics) {
    double start = now();
    if (wanted > MAX_CLIENTS) wanted = MAX_CLIENTS;
    while (count < wanted) {
        connect_one(kind, own_of(count, own_topics));
        if (shaking < AT_ONCE) continue;
        if (!until_none(&shaking, &none)) break;
    }
    until_none(&shaking, &none);
    until_none(&waiting, &none);
    answer_clients(start);
}

static void subscribe(enum kind kind, uint32_t own_topics) {
    double start = now();
    for (int i = 0; i < count; i++) {
        struct client *c = &clients[i];
        if (c->state != OPEN || c->subscribed) continue;
        subscribe_one(c, kind, own_of(i, own_topics));
        if (waiting >= AT_ONCE && !until_none(&waiting, &none)) break;
    }
    until_none(&waiting, &none);
    answer_clients(start);
}

static void keep(int wanted) {
    while (count > wanted) {
        struct client *c = &clients[--count];
        if (c->state == CLOSED) continue;
        if (c->hears && !c->stalled) hearing--;
        reset(c);
    }
    printf("{\"clients\": %d}\n", count);
}

static enum kind kind_named(const char *name) { return !strcmp(name, "own") ? OWN : !strcmp(name, "idle") ? IDLE : TOPIC; }

static void command(const char *line) {
    char kind[16] = "";
    unsigned topics = 0;
    int burst, wanted, rate, nth;
    double all_rate, own_rate, period, seconds, live;
    long events, missed;
    if (sscanf(line, "connect %d %15s %u", &wanted, kind, &topics) >= 1) connect_clients(wanted, kind_named(kind), topics);
    else if (!strncmp(line, "subscribe", 9)) {
        sscanf(line, "subscribe %15s %u", kind, &topics);
        subscribe(kind_named(kind), topics);
    } else if (sscanf(line, "keep %d", &wanted) == 1) keep(wanted);
    else if (sscanf(line, "run %d %ld", &burst, &events) == 2 && burst > 0 && burst <= 128) run(burst, events);
    else if (sscanf(line, "pace %d %ld", &rate, &events) == 2 && rate > 0 && events > 0) pace(rate, events);
    else if (sscanf(line, "day %lf %lf %u %lf", &all_rate, &own_rate, &topics, &seconds) == 4 && topics <= MAX_CLIENTS)
        day(all_rate, own_rate, topics, seconds);
    else if (sscanf(line, "navigate %lf %lf %lf %lf", &all_rate, &own_rate, &period, &seconds) == 4)
        navigate(all_rate, own_rate, period, seconds);
    else if (sscanf(line, "stall %d", &nth) == 1 && nth > 0) stall(nth);
    else if (!strncmp(line, "thaw", 4)) thaw();
    else if (sscanf(line, "storm %ld %lf %d", &missed, &live, &nth) == 3 && missed >= 0 && nth > 0) storm(missed, live, nth);
    else if (!strncmp(line, "quit", 4)) quitting = 1;
    else printf("{\"error\": \"not understood\"}\n");
    fflush(stdout);
}

/* Between commands the clients are served: they answer pings. */
static void serve(void) {
    char line[256];
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = STDIN_ID};
    int commands = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ctl(commands, EPOLL_CTL_ADD, 0, &e)) die("stdin");
    while (!quitting) {
        turn(0.02);
        if (epoll_wait(commands, &e, 1, 0) < 1) continue;
        if (!fgets(line, sizeof line, stdin)) break;
        command(line);
    }
}

/* The command line: numbers, bytes as texts.c reads them, and flags. */
static const struct {
    const char *name;
    int *to;
} numbers[] = {{"ws-port", &ws_port}, {"greetings", &greetings}, {"replies", &replies}, {"next-replies", &next_replies},
               {"back-replies", &back_replies}, {"pub-port", &pub_port}, {"repeat", &repeats}, {"size", &text_size},
               {"patience", &patience}},
  flags[] = {{"binary", &binary}, {"batch", &batch}, {"pub-frames", &pub_frames}, {"deflate", &compressed},
             {"job-events", &job_events}};
static const struct {
    const char *name;
    struct bytes *to;
} templates[] = {{"head", &heads[TOPIC]}, {"head-own", &heads[OWN]}, {"head-idle", &heads[IDLE]}, {"hello", &hello},
                 {"first", &firsts[TOPIC]}, {"first-own", &firsts[OWN]}, {"first-idle", &firsts[IDLE]},
                 {"next-own", &next_own}, {"back-head", &back_head}, {"back", &back}, {"pub-hello", &pub_hello},
                 {"pub-head", &to_all.head}, {"pub-prefix", &to_all.prefix}, {"pub-suffix", &to_all.suffix},
                 {"own-head", &to_own.head}, {"own-prefix", &to_own.prefix}, {"own-suffix", &to_own.suffix}};

#define LENGTH(array) (int)(sizeof(array) / sizeof *(array))

static void read_options(int argc, char **argv) {
    enum { NUMBER = 1000, FLAG = 2000, TEMPLATE = 3000 };
    static struct option names[LENGTH(numbers) + LENGTH(flags) + LENGTH(templates) + 2];
    struct option *name = names;
    for (int i = 0; i < LENGTH(numbers); i++) *name++ = (struct option){numbers[i].name, 1, 0, NUMBER + i};
    for (int i = 0; i < LENGTH(flags); i++) *name++ = (struct option){flags[i].name, 0, 0, FLAG + i};
    for (int i = 0; i < LENGTH(templates); i++) *name++ = (struct option){templates[i].name, 1, 0, TEMPLATE + i};
    *name = (struct option){"framing", 1, 0, 'f'};
    for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (o >= TEMPLATE) *templates[o - TEMPLATE].to = unescaped(optarg);
        else if (o >= FLAG) *flags[o - FLAG].to = 1;
        else if (o >= NUMBER) *numbers[o - NUMBER].to = atoi(optarg);
        else if (o == 'f') framing = framing_named(optarg);
        else exit(2);
    }
    if (text_size < 50 || text_size > MOST_SIZE) die("--size");
}

int main(int argc, char **argv) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    read_options(argc, argv);
    make_texts();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    setvbuf(stdin, NULL, _IONBF, 0);
    serve();
    return 0;
}
