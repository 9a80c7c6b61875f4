/* The floor: each line on the control port is framed and goes to each client with one send(). Nothing else is done:
 * the handshake's answer is the one for the load generator's key, and what clients send is thrown away. With "joined",
 * the lines that come together go out together, in one send() for each client.
 *
 * floor WS_PORT CONTROL_PORT [joined]
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <netinet/tcp.h>
#include <unistd.h>

enum { MOST = 20000, FRAMES = 1 << 21 };
static const char HELLO[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static int epoll, open_fds[MOST], opened, place[MOST], publisher = -1;
static char control[1 << 20];
static size_t control_size;
static unsigned char frames[FRAMES];
static size_t frames_size;
static int joined;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int fd) {
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
}

static int listening(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 4096)) die("listen");
    watch(fd);
    return fd;
}

static void drop(int fd) {
    open_fds[place[fd]] = open_fds[--opened];
    place[open_fds[place[fd]]] = place[fd];
    place[fd] = -1;
    close(fd);
}

static void from_client(int fd) {
    char data[4096];
    if (recv(fd, data, sizeof data, MSG_DONTWAIT) <= 0) {
        if (place[fd] >= 0) drop(fd);
        else close(fd);
    } else if (place[fd] < 0) {
        place[fd] = opened;
        open_fds[opened++] = fd;
        send(fd, HELLO, sizeof HELLO - 1, MSG_NOSIGNAL);
    }
}

static void gather(const char *line, size_t size) {
    unsigned char *frame = frames + frames_size;
    frame[0] = 0x81;
    frame[1] = 126;
    frame[2] = (unsigned char)(size >> 8);
    frame[3] = (unsigned char)size;
    memcpy(frame + 4, line, size);
    frames_size += size + 4;
}

static void broadcast(void) {
    for (int i = 0; i < opened; i++) {
        if (send(open_fds[i], frames, frames_size, MSG_NOSIGNAL) < 0) perror("send");
    }
    frames_size = 0;
}

static void from_control(int fd) {
    char *line = control, *end;
    ssize_t got = recv(fd, control + control_size, sizeof control - control_size, 0);
    if (got <= 0) {
        close(fd);
        publisher = -1;
        control_size = 0;
        return;
    }
    control_size += (size_t)got;
    while ((end = memchr(line, '\n', control_size - (size_t)(line - control)))) {
        gather(line, (size_t)(end - line));
        if (!joined) broadcast();
        line = end + 1;
    }
    if (frames_size) broadcast();
    control_size -= (size_t)(line - control);
    memmove(control, line, control_size);
}

int main(int argc, char **argv) {
    struct epoll_event events[1024];
    struct rlimit files = {MOST, MOST};
    int clients, controls, on = 1;
    if (argc < 3) return 2;
    joined = argc > 3 && !strcmp(argv[3], "joined");
    setrlimit(RLIMIT_NOFILE, &files);
    memset(place, -1, sizeof place);
    epoll = epoll_create1(0);
    clients = listening(atoi(argv[1]));
    controls = listening(atoi(argv[2]));
    for (;;) {
        int n = epoll_wait(epoll, events, 1024, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == clients || fd == controls) {
                int came = accept(fd, NULL, NULL);
                if (came < 0) continue;
                setsockopt(came, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                if (fd == controls) publisher = came;
                watch(came);
            } else if (fd == publisher) {
                from_control(fd);
            } else {
                from_client(fd);
            }
        }
    }
}
