/* What the parts of the load generator share. main.c says what it does. */
#ifndef LOAD_H
#define LOAD_H

#include <stddef.h>
#include <stdint.h>

enum { WINDOW = 1024, MAX_CLIENTS = 19500, MOST_SIZE = 8192, MOST_MESSAGE = 1 << 16, MOST_POSITION = 96 };
enum state { CLOSED, SHAKING, OPEN };
enum kind { TOPIC, OWN, IDLE, KINDS }; /* of clients: hear the topic of all; that and an own one; an own one only */
enum framing { PLAIN, NATS, MQTT, STOMP, ENGINE_IO, V1, NCHAN_META };
enum coming { HERE, AWAY, GREETING, RESUMING }; /* a client that was cut: what it waits for */

#define ALL UINT32_MAX        /* the topic that all who hear anything hear */
#define NONE (UINT32_MAX - 1) /* no topic of one's own */

/* Bytes with blanks: @@@@@@ for the number of the own topic, &&&&&& for that of the one that is left, ###### for the bytes
 * of an event's text, ^^^^^^ for a client's position. What stands between <<< and >>> is repeated for further topics. All
 * numbers have six digits, so that announced lengths hold. */
struct bytes {
    char *at;
    size_t size;
};

/* What is put into the blanks. */
struct blanks {
    uint32_t own, before;
    size_t length;
    const char *position;
};

struct client {
    int fd;
    uint8_t state;
    uint8_t subscribed; /* the message with its topics is sent */
    uint8_t hears;      /* the topic of all */
    uint8_t stalled;    /* does not read */
    uint8_t moving;     /* has another topic of its own to go to, and waits for what is on its way */
    uint32_t words;     /* messages due to it that are no events */
    uint32_t own, before; /* its own topic, and the one that it is just leaving */
    uint32_t due;       /* events of its own topic that are on their way, in a navigation */
    long behind;        /* events that it got after it had stalled */
    uint8_t coming;     /* it was cut, and comes back */
    uint8_t told;       /* it was told that events are lost */
    uint64_t away_from, away_to; /* the first event that happened while it was away, and the first behind these */
    char position[MOST_POSITION]; /* that the server told it last */
    uint64_t next;      /* the event that can come now; all before have come or won't */
    unsigned char *part, *rest; /* the beginnings of a WebSocket frame and of a packet whose rest has not come */
    size_t part_size, rest_size;
    uint64_t seen[WINDOW / 64];
};

/* How an event is given to the server: in a request with a head, if there is one, between a prefix and a suffix. */
struct wording {
    struct bytes head, prefix, suffix;
};

/* main.c */
extern int patience;
double now(void);
void die(const char *what);
int turn(double seconds);
int until_none(const int *wanted, const long *wanted_too);
int connected(int port);
void watch(int fd, uint32_t id);
void unwatch(int fd);
void send_all(int fd, const char *data, size_t size);

/* texts.c */
extern int text_size, repeats, job_events;
struct bytes unescaped(const char *text);
size_t expand(char *out, struct bytes from, const struct blanks *blanks);
int has_blank(struct bytes from, const char *blank);
size_t text_length(uint64_t number);
void make_texts(void);
char *make_text(uint64_t number);
int text_differs(const char *text, uint64_t number);

/* framings.c */
enum framing framing_named(const char *name);
void take_message(struct client *c, const unsigned char *data, size_t size);

/* inflate.c */
const unsigned char *inflated(const unsigned char *data, size_t size, size_t *length);

/* clients.c */
extern struct client clients[];
extern int count, shaking, waiting, hearing, ws_port, greetings, replies, binary;
extern int next_replies, back_replies, compressed, coming_back;
extern struct bytes heads[KINDS], firsts[KINDS], hello, next_own, back_head, back;
extern enum framing framing;
extern long gone, damaged, strays;
void connect_one(enum kind kind, uint32_t own);
void subscribe_one(struct client *c, enum kind kind, uint32_t own);
void cut_one(struct client *c);
void return_one(struct client *c);
void come_further(struct client *c);
int resumes(void);
void receive(struct client *c);
void reset(struct client *c);
void lose(struct client *c);
void say(struct client *c, struct bytes what, int words);
void send_frame(struct client *c, int opcode, const void *data, size_t size);

/* account.c: every event and every delivery */
extern uint64_t published, run_from;
extern long left, under_way, answers_left, wire;
extern uint32_t members[];
void take_event(struct client *c, const char *text, size_t size);
void take_word(struct client *c);
void begin_run(long most, int each_event);
void end_run(long planned, long steps, const char *more);
void event_begins(uint32_t topic, long takers, double moment);
void note_step(long step, double ms);
void stall_begins(void);
long stalled_for(void);
long still_wanting(uint64_t number);
long never_came(const struct client *c, uint64_t from, uint64_t to);
void forgive(long number);

/* publisher.c */
extern int pub_port, batch, pub_frames, refused;
extern struct bytes pub_hello;
extern struct wording to_all, to_own;
extern int publisher;
void take_answers(void);
void publish(const uint32_t *topics, const long *takers, const double *moments, int number);
void open_publisher(void);

/* loads.c */
void gather(uint32_t topic, long number);
void flush(void);
void run(int burst, long events);
void pace(int rate, long events);
void day(double all_rate, double own_rate, uint32_t topics, double seconds);
void navigate(double all_rate, double own_rate, double period, double seconds);
void stall(int nth);
void thaw(void);

/* storm.c */
void storm(long missed, double rate, int window);

#endif
