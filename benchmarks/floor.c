/* Floors in C: what the kernel takes, and next to nothing else. One epoll loop each.
 *
 *   floor fanout SIZE   on a byte from the first connection, SIZE bytes to each of the others
 *   floor answer SIZE   to whatever comes, an HTTP answer with a body of SIZE bytes
 *
 * The former ends with its first connection. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 512, MOST_STREAMS = 1 << 20 };

static char *message;
static size_t length;

static void make_event(size_t size) {
    length = size;
    message = malloc(size + 32);
    memset(message, 'x', size);
    memcpy(message, "event: flag\ndata: ", 18);
    memcpy(message + size - 2, "\n\n", 2);
}

static void make_answer(size_t size) {
    message = malloc(size + 256);
    length = sprintf(message, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                              "Content-Length: %zu\r\n\r\n", size);
    memset(message + length, 'x', size);
    length += size;
}

static void send_all(int fd) {
    for (size_t sent = 0; sent < length;) {
        ssize_t n = send(fd, message + sent, length - sent, MSG_NOSIGNAL);
        if (n < 0)
            return;
        sent += n;
    }
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    int is_fan_out = !strcmp(argv[1], "fanout");
    is_fan_out ? make_event(atol(argv[2])) : make_answer(atol(argv[2]));

    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener, (void *)&address, size) || listen(listener, 4096))
        return 1;
    getsockname(listener, (void *)&address, &size);
    printf("listening on http://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);

    int epoll = epoll_create1(0), has_control = 0, streams = 0;
    int *stream = malloc(MOST_STREAMS * sizeof *stream);
    static char received[1 << 16];
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[EVENTS];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, ready, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                int accepted;
                while ((accepted = accept4(listener, NULL, NULL, 0)) >= 0) {
                    setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    if (is_fan_out && has_control) {
                        stream[streams++] = accepted;
                        continue;
                    }
                    has_control = 1;
                    event.data.fd = accepted;
                    epoll_ctl(epoll, EPOLL_CTL_ADD, accepted, &event);
                }
                continue;
            }
            ssize_t n = recv(fd, received, sizeof received, 0);
            if (n <= 0) {
                if (is_fan_out)
                    return 0;
                close(fd);
            } else if (is_fan_out) {
                for (int s = 0; s < streams; s++)
                    send(stream[s], message, length, MSG_NOSIGNAL | MSG_DONTWAIT);
            } else {
                send_all(fd);
            }
        }
    }
}
