/* The loads: who publishes what when, and what the clients do meanwhile. */
#include "load.h"

#include <stdio.h>

static const double TICK = 0.005;      /* seconds: what is due meanwhile is published in one write */
enum { MOST_AT_ONCE = 128, MOST_UNDER_WAY = WINDOW / 2 };

static int zero;

/* Events that are due at a rate. */
struct stream {
    double rate;
    long planned, done;
};

/* What is gathered for one write. */
static uint32_t topics[MOST_AT_ONCE];
static long takers[MOST_AT_ONCE];
static double moments[MOST_AT_ONCE];
static int gathered;

void gather(uint32_t topic, long number) {
    topics[gathered] = topic;
    moments[gathered] = now();
    takers[gathered++] = number;
}

void flush(void) {
    if (gathered) publish(topics, takers, moments, gathered);
    gathered = 0;
}

/* The same at a rate: a producer that is answered, and may give many events at once, waits for the answer; what is due
 * meanwhile is its next request. */
static void flush_in_turn(void) {
    if (!batch || !answers_left) flush();
}

static int all_there(void) { return until_none(&zero, &answers_left) && until_none(&zero, &left); }

/* EVENTS events, BURST at a time; the next burst when all clients have the last. */
void run(int burst, long events) {
    long bursts = events / burst, done = 0;
    int whole = 1;
    begin_run(bursts, 0);
    for (; done < bursts && whole && !refused && !gone; done++) {
        double at = now();
        for (int i = 0; i < burst; i++) gather(ALL, hearing);
        flush();
        whole = all_there();
        note_step(done, (now() - at) * 1000);
    }
    end_run(events, done, "");
}

static struct stream stream(double rate, double seconds) { return (struct stream){rate, (long)(rate * seconds + 0.5), 0}; }

/* Whether one more event is due, and there is room for it. */
static int is_due(struct stream *s, double time) {
    if (s->done >= s->planned || (double)s->done > s->rate * time) return 0;
    if (gathered == MOST_AT_ONCE || under_way + gathered >= MOST_UNDER_WAY) return 0;
    s->done++;
    return 1;
}

/* Go on with what comes in until the tick that began at `from` is over. */
static void until_tick(double from, double tick) {
    double rest = from + tick - now();
    turn(rest < 0.001 ? 0.001 : rest);
}

/* EVENTS events, RATE a second, one by one and whatever has become of those before. */
void pace(int rate, long events) {
    double start;
    long done = 0;
    begin_run(events, 1);
    start = now();
    while (done < events && !refused && !gone && now() - start < 2.0 * (double)events / rate + 1) {
        double early = start + (double)done / rate - now();
        if (early > 0 || under_way >= MOST_UNDER_WAY) {
            turn(early < 0.001 ? 0.001 : early);
            continue;
        }
        gather(ALL, hearing);
        flush();
        done++;
    }
    all_there();
    end_run(events, done, "");
}

/* Tower's day: events for all and events of single jobs, each at its rate; the clients have jobs as their own topics. */
void day(double all_rate, double own_rate, uint32_t jobs, double seconds) {
    struct stream all = stream(all_rate, seconds), own = stream(own_rate, seconds);
    double start;
    begin_run(all.planned + own.planned, 1);
    start = now();
    while (all.done + own.done < all.planned + own.planned && !refused && !gone && now() - start < 2 * seconds + 1) {
        double at = now();
        while (is_due(&all, at - start)) gather(ALL, hearing);
        while (is_due(&own, at - start)) {
            uint32_t job = (uint32_t)own.done % jobs;
            gather(job, members[job]);
        }
        flush_in_turn();
        until_tick(at, TICK);
    }
    flush();
    all_there();
    end_run(all.planned + own.planned, (long)(published - run_from), "");
}

/* Have a client replace its own topic, if nothing of that is on its way. */
static int moved(struct client *c) {
    if (c->state != OPEN || c->words || c->due) return 0;
    c->moving = 0;
    c->before = c->own;
    c->own += (uint32_t)count;
    say(c, next_own, next_replies);
    return 1;
}

/* An event for the own topic of a client that has it for certain; each tenth for one that nobody has any more. */
static void gather_own(long number) {
    static uint32_t at;
    for (int tries = 0; tries < count; tries++) {
        struct client *c = &clients[at++ % (uint32_t)count];
        if (c->state != OPEN || c->words || c->moving) continue;
        if (number % 10 == 9 && c->before != NONE) {
            gather(c->before, 0);
        } else {
            c->due++;
            gather(c->own, 1);
        }
        return;
    }
}

/* Page navigation: each client replaces its set once in a period, while events for all and for single clients go on. */
void navigate(double all_rate, double own_rate, double period, double seconds) {
    struct stream all = stream(all_rate, seconds), own = stream(own_rate, seconds);
    long moves = (long)(count * seconds / period), asked = 0, made = 0;
    char more[64];
    double start;
    begin_run(all.planned + own.planned, 1);
    start = now();
    while ((all.done + own.done < all.planned + own.planned || made < moves) && !refused && !gone &&
           now() - start < 2 * seconds + 1) {
        double at = now();
        for (; asked < moves && (double)asked <= count * (at - start) / period; asked++) clients[asked % count].moving = 1;
        for (int i = 0; i < count; i++) {
            if (clients[i].moving) made += moved(&clients[i]);
        }
        while (is_due(&all, at - start)) gather(ALL, hearing);
        while (is_due(&own, at - start)) gather_own(own.done);
        flush_in_turn();
        until_tick(at, TICK);
    }
    flush();
    all_there();
    until_none(&waiting, &left);
    snprintf(more, sizeof more, ", \"moves\": %ld, \"moves_planned\": %ld", made, moves);
    end_run(all.planned + own.planned, (long)(published - run_from), more);
}

/* Have each so-manieth client read no more. */
void stall(int nth) {
    int number = 0;
    stall_begins();
    for (int i = nth - 1; i < count; i += nth) {
        struct client *c = &clients[i];
        if (c->state != OPEN || c->stalled || !c->hears) continue;
        unwatch(c->fd);
        c->stalled = 1;
        c->behind = 0;
        hearing--;
        number++;
    }
    printf("{\"stalled\": %d}\n", number);
}

/* Have them read again: each must have got all, or have been cut off. The rest is lost without a word. */
void thaw(void) {
    long wanted = stalled_for(), whole = 0, cut = 0, silent = 0, before = -1, behind = 0;
    int number = 0;
    static uint8_t was[MAX_CLIENTS];
    char more[96];
    double last = now();
    begin_run(0, 0);
    for (int i = 0; i < count; i++) {
        if ((was[i] = clients[i].stalled)) {
            watch(clients[i].fd, (uint32_t)i);
            number++;
        }
    }
    while (number && now() - last < patience / 15.0 + 0.2) { /* silence for so long: it is all */
        turn(0.05);
        behind = 0;
        for (int i = 0; i < count; i++) behind += was[i] ? clients[i].behind : 0;
        if (behind != before) last = now();
        before = behind;
    }
    for (int i = 0; i < count; i++) {
        if (!was[i]) continue;
        if (clients[i].state != OPEN) {
            cut++;
            continue;
        }
        if (clients[i].behind == wanted) whole++;
        else silent++;
        clients[i].stalled = 0;
        hearing++;
    }
    snprintf(more, sizeof more, ", \"whole\": %ld, \"cut\": %ld, \"silent\": %ld", whole, cut, silent);
    end_run(0, 0, more);
}
