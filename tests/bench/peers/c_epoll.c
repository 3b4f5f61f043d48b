// An echo server in C with one thread and epoll. What a client does not take yet is kept, and it is not read from
// until it has taken that.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SIZE = 64 * 1024 };

struct client {
    int descriptor;
    size_t length, sent; // What is kept: only then there is a buffer.
    char *kept;
};

static int poller;
static char buffer[SIZE];

static void watch(struct client *client, int operation, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = client};
    epoll_ctl(poller, operation, client->descriptor, &event);
}

static void end(struct client *client) {
    close(client->descriptor);
    free(client->kept);
    free(client);
}

static void serve(struct client *client) {
    if (client->kept) {
        ssize_t sent = send(client->descriptor, client->kept + client->sent, client->length - client->sent, 0);
        if (sent < 0) {
            if (errno != EAGAIN) end(client);
            return;
        }
        client->sent += sent;
        if (client->sent < client->length) return;
        free(client->kept);
        client->kept = NULL;
        watch(client, EPOLL_CTL_MOD, EPOLLIN);
        return;
    }
    ssize_t count = recv(client->descriptor, buffer, SIZE, 0);
    if (count <= 0) {
        if (count == 0 || errno != EAGAIN) end(client);
        return;
    }
    ssize_t sent = send(client->descriptor, buffer, count, 0);
    if (sent == count) return;
    if (sent < 0 && errno != EAGAIN) {
        end(client);
        return;
    }
    client->sent = 0;
    client->length = count - (sent < 0 ? 0 : sent);
    client->kept = malloc(client->length);
    memcpy(client->kept, buffer + count - client->length, client->length);
    watch(client, EPOLL_CTL_MOD, EPOLLOUT);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(0);
    struct client listener = {.descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listener.descriptor, (struct sockaddr *)&address, length) != 0 || listen(listener.descriptor, 4096) != 0) {
        perror("listen");
        return 1;
    }
    getsockname(listener.descriptor, (struct sockaddr *)&address, &length);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    watch(&listener, EPOLL_CTL_ADD, EPOLLIN);

    struct epoll_event events[256];
    for (;;) {
        int count = epoll_wait(poller, events, 256, -1);
        for (int index = 0; index < count; index++) {
            if (events[index].data.ptr != &listener) {
                serve(events[index].data.ptr);
                continue;
            }
            int descriptor;
            while ((descriptor = accept4(listener.descriptor, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                struct client *client = calloc(1, sizeof *client);
                client->descriptor = descriptor;
                watch(client, EPOLL_CTL_ADD, EPOLLIN);
            }
        }
    }
}
