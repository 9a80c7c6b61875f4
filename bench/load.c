/* The load: N WebSocket clients and one publisher in one thread, told what to do by lines on stdin.
 *
 *   connect N           have N clients: handshake, and the greetings that the server sends of itself
 *   subscribe           each client that has not yet done so sends the first message and waits for its replies
 *   keep N              reset all connections but N
 *   run BURST EVENTS    publish EVENTS events, BURST at a time; the next burst when all clients have the last
 *   quit
 *
 * Each is answered by one line of JSON. Every event has a number and a text that follows from the number: each client's
 * messages are checked for loss, repetition, order and, byte for byte, content.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
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

enum { SIZE = 300, WINDOW = 256, MAX_CLIENTS = 19000, AT_ONCE = 64, STDIN_ID = MAX_CLIENTS, PUBLISHER_ID };
static const double PATIENCE = 30;   /* seconds without any progress after which a command is given up */
static const double AFTERMATH = 0.1; /* seconds after a run in which nothing more may come */
static const char KEY[] = "dGhlIHNhbXBsZSBub25jZQ=="; /* RFC 6455's example and its answer: no SHA-1 needed here */
static const char ACCEPT[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

enum state { CLOSED, SHAKING, OPEN };

struct client {
    int fd;
    enum state state;
    int words;      /* messages that are no events */
    int subscribed; /* the first message is sent */
    uint64_t next;  /* the event that should come now */
    uint64_t seen[WINDOW / 64];
    unsigned char *part; /* the beginning of a frame whose rest has not come */
    size_t part_size;
};

/* What the command line says. */
static int ws_port, pub_port, greetings, replies, batch, inside;
static const char *ws_target = "/", *first, *pub_head, *pub_prefix = "", *pub_suffix = "\n";

static struct client clients[MAX_CLIENTS];
static int count, shaking, waiting, epoll, publisher = -1;
static uint64_t published, run_from;
static long deliveries, lost, repeated, disordered, damaged, strays, gone;
static long left;             /* deliveries that the burst still wants */
static int answers_left, refused; /* of the publisher's requests */
static char answer[65536];
static size_t answer_size;
static char texts[WINDOW][SIZE + 1];
static unsigned char input[1 << 21];
static int quitting;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* The text of event `number`: SIZE bytes of JSON whose every byte follows from the number. */
static void make_text(char *text, uint64_t number) {
    uint32_t x = (uint32_t)(number * 2654435761u + 1);
    int at = sprintf(text, "{\"seq\":\"%010llu\",\"pad\":\"", (unsigned long long)number);
    for (; at < SIZE - 2; at++) {
        x = x * 1664525u + 1013904223u;
        text[at] = "abcdefghijklmnopqrstuvwxyz012345"[x >> 27];
    }
    memcpy(text + SIZE - 2, "\"}", 3);
}

static int connected(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval patience = {.tv_sec = (time_t)PATIENCE};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    return fd;
}

static void send_all(int fd, const char *data, size_t size) {
    for (int tries = 0; size && tries < 100000; tries++) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0) die("send");
        data += sent;
        size -= (size_t)sent;
    }
}

static void watch(int fd, uint32_t id) {
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = id};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
}

/* ---- the clients ---- */

static void reset(struct client *c) {
    struct linger at_once = {1, 0}; /* no TIME_WAIT: the ports are wanted again */
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(c->fd);
    free(c->part);
    memset(c, 0, sizeof *c);
}

static void lose(struct client *c) {
    if (c->state == SHAKING) shaking--, waiting--;
    gone++;
    reset(c);
}

static void send_frame(struct client *c, int opcode, const unsigned char *data, size_t size) {
    unsigned char frame[4096], *at = frame;
    const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    if (size > sizeof frame - 16) die("first message too long");
    *at++ = (unsigned char)(0x80 | opcode);
    if (size < 126) {
        *at++ = (unsigned char)(0x80 | size);
    } else {
        *at++ = 0x80 | 126;
        *at++ = (unsigned char)(size >> 8);
        *at++ = (unsigned char)size;
    }
    memcpy(at, mask, 4);
    at += 4;
    for (size_t i = 0; i < size; i++) *at++ = data[i] ^ mask[i & 3];
    if (send(c->fd, frame, (size_t)(at - frame), MSG_NOSIGNAL) < 0) lose(c);
}

/* Note that event `number` has come. */
static void note(struct client *c, uint64_t number) {
    uint64_t *word = &c->seen[number % WINDOW / 64], bit = 1ull << (number % 64);
    if (number >= published || number < run_from) {
        strays++;
        return;
    }
    if (number + WINDOW <= c->next || (number < c->next && *word & bit)) {
        repeated++;
        return;
    }
    if (number < c->next) disordered++;
    for (; c->next <= number; c->next++) c->seen[c->next % WINDOW / 64] &= ~(1ull << (c->next % 64));
    *word |= bit;
    deliveries++;
    left--;
}

/* One event's text somewhere in a message. Returns where to look on. */
static const char *take_event(struct client *c, const char *text, const char *end) {
    if (end - text < SIZE) {
        damaged++;
        return end;
    }
    uint64_t number = strtoull(text + 8, NULL, 10);
    if (memcmp(text, texts[number % WINDOW], SIZE)) {
        char wanted[SIZE + 1];
        make_text(wanted, number);
        if (memcmp(text, wanted, SIZE)) damaged++;
    }
    note(c, number);
    return text + SIZE;
}

static void take_message(struct client *c, const char *data, size_t size) {
    const char *end = data + size, *at;
    if (!inside && size > 8 && !memcmp(data, "{\"seq\":\"", 8)) {
        if (size == SIZE) take_event(c, data, end);
        else damaged++;
        return;
    }
    at = inside ? memmem(data, size, "{\"seq\":\"", 8) : NULL;
    if (!at) {
        c->words++;
        if (c->words == greetings + (c->subscribed ? replies : 0)) waiting--;
        else if (!inside) strays++;
    }
    for (; at && at < end; at = memmem(at, (size_t)(end - at), "{\"seq\":\"", 8)) at = take_event(c, at, end);
}

static void take_frame(struct client *c, const unsigned char *head, const unsigned char *data, size_t size) {
    int opcode = head[0] & 15;
    if (opcode == 8) lose(c);
    else if (opcode == 9) send_frame(c, 10, data, size);
    else if ((opcode == 1 || opcode == 2) && head[0] & 0x80) take_message(c, (const char *)data, size);
    else if (opcode != 10) damaged++;
}

/* Take one whole frame. Returns its length, 0 if it is not all there. */
static size_t frame(struct client *c, const unsigned char *at, size_t size) {
    size_t head = 2, length;
    if (size < 2) return 0;
    length = at[1] & 127;
    if (length == 126) {
        head = 4;
        if (size < head) return 0;
        length = (size_t)at[2] << 8 | at[3];
    } else if (length == 127) {
        head = 10;
        if (size < head) return 0;
        length = 0;
        for (int i = 2; i < 10; i++) length = length << 8 | at[i];
    }
    if (size < head + length) return 0;
    take_frame(c, at, at + head, length);
    return head + length;
}

/* Take the answer to the handshake. Returns its length, 0 if it is not all there. */
static size_t shaken(struct client *c, const unsigned char *at, size_t size) {
    const unsigned char *end = memmem(at, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (size < 12 || memcmp(at, "HTTP/1.1 101", 12) || !memmem(at, size, ACCEPT, strlen(ACCEPT))) {
        fprintf(stderr, "load: handshake refused: %.*s\n", (int)(end - at), at);
        exit(2);
    }
    c->state = OPEN;
    shaking--;
    if (!greetings) waiting--;
    return (size_t)(end - at) + 4;
}

static void receive(struct client *c) {
    size_t have = c->part_size, at = 0, took;
    memcpy(input, c->part, have);
    ssize_t got = recv(c->fd, input + have, sizeof input - have, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        lose(c);
        return;
    }
    have += (size_t)got;
    do {
        took = c->state == SHAKING ? shaken(c, input + at, have - at) : frame(c, input + at, have - at);
        at += took;
    } while (took && at < have && c->state != CLOSED);
    if (c->state == CLOSED) return;
    c->part_size = have - at;
    if (!c->part_size) {
        free(c->part);
        c->part = NULL;
    } else {
        c->part = realloc(c->part, c->part_size);
        memcpy(c->part, input + at, c->part_size);
    }
}

/* ---- the publisher ---- */

/* Take the answers to requests: a status and a body whose length is announced. */
static void take_answers(void) {
    ssize_t got = recv(publisher, answer + answer_size, sizeof answer - answer_size - 1, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) die("the publisher's connection");
    answer_size += (size_t)got;
    answer[answer_size] = 0;
    if (!pub_head) answer_size = 0;
    for (char *end; answer_size && (end = strstr(answer, "\r\n\r\n"));) {
        char *length = strcasestr(answer, "\r\ncontent-length:");
        size_t size = (size_t)(end + 4 - answer) + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
        if (answer_size < size) return;
        if (answer[9] != '2') {
            if (!refused++) fprintf(stderr, "load: the publisher was refused: %.*s\n", (int)size, answer);
        }
        answers_left--;
        answer_size -= size;
        memmove(answer, answer + size, answer_size + 1);
    }
}

/* Publish events in one write: in one request or, where the server knows no batches, in as many. */
static void publish(int burst) {
    static char out[WINDOW * (SIZE + 2048)];
    static char body[WINDOW * (SIZE + 1024)];
    size_t out_size = 0, size = 0;
    for (int i = 0; i < burst; i++) {
        char *text = texts[published % WINDOW];
        make_text(text, published++);
        size += (size_t)sprintf(body + size, "%s%s%s", pub_prefix, text, pub_suffix);
        if (pub_head && (!batch || i == burst - 1)) {
            out_size += (size_t)sprintf(out + out_size, "%sContent-Length: %zu\r\n\r\n", pub_head, size);
            answers_left++;
        } else if (pub_head) {
            continue;
        }
        memcpy(out + out_size, body, size);
        out_size += size;
        size = 0;
    }
    send_all(publisher, out, out_size);
}

/* ---- the commands ---- */

/* Handle what comes in during `seconds`, at the most; returns how much that was. */
static int turn(double seconds) {
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
static int until_none(const int *wanted, const long *wanted_too) {
    double last = now();
    while (*wanted > 0 || *wanted_too > 0) {
        int before = *wanted;
        long before_too = *wanted_too;
        turn(0.5);
        if (gone) return 0;
        if (*wanted != before || *wanted_too != before_too) last = now();
        else if (now() - last > PATIENCE) return 0;
    }
    return 1;
}

static const long none = 0;

static void connect_one(void) {
    char request[2048];
    struct client *c = &clients[count];
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n", ws_target, ws_port, KEY);
    memset(c, 0, sizeof *c);
    c->fd = connected(ws_port);
    c->state = SHAKING;
    c->next = published;
    shaking++, waiting++;
    watch(c->fd, (uint32_t)count++);
    send_all(c->fd, request, (size_t)size);
}

static void connect_clients(int wanted) {
    double start = now();
    if (wanted > MAX_CLIENTS) wanted = MAX_CLIENTS;
    while (count < wanted) {
        int room = AT_ONCE - 1;
        connect_one();
        if (shaking <= room) continue;
        if (!until_none(&shaking, &none)) break;
    }
    until_none(&waiting, &none);
    printf("{\"clients\": %d, \"waiting\": %d, \"gone\": %ld, \"seconds\": %.3f}\n", count, waiting, gone, now() - start);
}

static void subscribe(void) {
    double start = now();
    for (int i = 0; i < count && first; i++) {
        struct client *c = &clients[i];
        if (c->state != OPEN || c->subscribed) continue;
        c->subscribed = 1;
        if (replies) waiting++;
        send_frame(c, 1, (const unsigned char *)first, strlen(first));
        if (waiting >= AT_ONCE && !until_none(&waiting, &none)) break;
    }
    until_none(&waiting, &none);
    printf("{\"clients\": %d, \"waiting\": %d, \"gone\": %ld, \"seconds\": %.3f}\n", count, waiting, gone, now() - start);
}

static void keep(int wanted) {
    while (count > wanted) {
        struct client *c = &clients[--count];
        if (c->state != CLOSED) reset(c);
    }
    printf("{\"clients\": %d}\n", count);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void settle(void) {
    double end = now() + AFTERMATH;
    while (now() < end) turn(AFTERMATH);
    for (int i = 0; i < count; i++) {
        if (clients[i].state != CLOSED) clients[i].next = published;
    }
}

static void run(int burst, long events) {
    long bursts = events / burst, done = 0;
    double *took = calloc((size_t)bursts + 1, sizeof *took), start = now(), end;
    int whole = 1;
    deliveries = lost = repeated = disordered = damaged = strays = refused = 0;
    run_from = published;
    if (publisher < 0) watch(publisher = connected(pub_port), PUBLISHER_ID);
    for (; done < bursts && whole && !refused && !gone; done++) {
        double at = now();
        left += (long)count * burst;
        publish(burst);
        whole = until_none(&answers_left, &left);
        took[done] = (now() - at) * 1000;
    }
    end = now();
    settle();
    lost = done * burst * count - deliveries;
    left = answers_left = 0;
    qsort(took, (size_t)done, sizeof *took, ascending);
    printf("{\"events\": %ld, \"deliveries\": %ld, \"lost\": %ld, \"repeated\": %ld, \"disordered\": %ld, \"damaged\": %ld, "
           "\"strays\": %ld, \"gone\": %ld, \"refused\": %d, \"seconds\": %.3f, \"p50_ms\": %.3f, \"p99_ms\": %.3f}\n",
           done * burst, deliveries, lost, repeated, disordered, damaged, strays, gone, refused, end - start,
           took[done / 2], took[done * 99 / 100]);
    free(took);
}

static void command(char *line) {
    int burst, wanted;
    long events;
    if (sscanf(line, "connect %d", &wanted) == 1) connect_clients(wanted);
    else if (!strncmp(line, "subscribe", 9)) subscribe();
    else if (sscanf(line, "keep %d", &wanted) == 1) keep(wanted);
    else if (sscanf(line, "run %d %ld", &burst, &events) == 2 && burst > 0 && burst <= WINDOW / 2) run(burst, events);
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

static void read_options(int argc, char **argv) {
    static const struct option names[] = {
        {"ws-port", 1, 0, 'p'}, {"ws-target", 1, 0, 't'},  {"greetings", 1, 0, 'g'},  {"first", 1, 0, 'f'},
        {"replies", 1, 0, 'r'}, {"pub-port", 1, 0, 'P'},   {"pub-head", 1, 0, 'H'},   {"pub-prefix", 1, 0, 'b'},
        {"batch", 0, 0, 'B'},   {"pub-suffix", 1, 0, 'a'}, {"inside", 0, 0, 'i'},     {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (o) {
        case 'p': ws_port = atoi(optarg); break;
        case 't': ws_target = optarg; break;
        case 'g': greetings = atoi(optarg); break;
        case 'f': first = optarg; break;
        case 'r': replies = atoi(optarg); break;
        case 'P': pub_port = atoi(optarg); break;
        case 'H': pub_head = optarg; break;
        case 'b': pub_prefix = optarg; break;
        case 'a': pub_suffix = optarg; break;
        case 'B': batch = 1; break;
        case 'i': inside = 1; break;
        default: exit(2);
        }
    }
}

int main(int argc, char **argv) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    read_options(argc, argv);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    setvbuf(stdin, NULL, _IONBF, 0);
    serve();
    return 0;
}
