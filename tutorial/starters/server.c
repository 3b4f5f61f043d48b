// Answers each line with "서버 응답: " and that line.
//     cc -pthread server.c -o server && ./server [HOST:PORT [LIMIT [SECONDS]]]
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char PREFIX[] = "서버 응답: ";
static int stop_pipe[2];  // readable for good after Ctrl-C
static int places[2];     // a byte in it for each place that is free
static long deadline_ms;

static long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// A signal handler may do hardly anything; a write is allowed.
static void on_interrupt(int signal) {
    (void)signal;
    if (write(stop_pipe[1], "", 1) < 0) { /* It is full: then it is readable. */ }
}

// send may take less than it was given.
static int send_all(int client, const char *bytes, size_t count, int flags) {
    while (count > 0) {
        ssize_t sent = send(client, bytes, count, flags);
        if (sent < 0) return -1;
        bytes += sent;
        count -= sent;
    }
    return 0;
}

static int answer(int client, const char *line, size_t count) {
    if (send_all(client, PREFIX, strlen(PREFIX), MSG_MORE) < 0) return -1;
    return send_all(client, line, count, 0);
}

// Ends our half, and reads what is still coming, for a second at most. To close with unread input would be a reset,
// and a reset destroys what was said.
static void say_goodbye(int client) {
    char bytes[4096];
    long end = now_ms() + 1000;
    shutdown(client, SHUT_WR);
    for (long left; (left = end - now_ms()) > 0;) {
        struct pollfd watched = {client, POLLIN, 0};
        if (poll(&watched, 1, left) > 0 && recv(client, bytes, sizeof bytes, 0) <= 0) return;
    }
}

static void talk(int client) {
    static const size_t ROOM = 64 * 1024;
    char *buffer = malloc(ROOM);
    size_t held = 0;        // bytes of a line that is not complete yet
    long since = now_ms();  // when it, or the silence before it, began
    while (buffer != NULL) {
        // In the middle of a line the stop has to wait, until the deadline at most.
        struct pollfd watched[] = {{client, POLLIN, 0}, {held > 0 ? -1 : stop_pipe[0], POLLIN, 0}};
        long left = since + deadline_ms - now_ms();
        int ready = poll(watched, 2, left > 0 ? left : 0);
        if (ready < 0) continue;
        if (ready == 0) break;
        if (watched[0].revents == 0) break;  // only the stop: nothing of this client is on its way
        ssize_t count = recv(client, buffer + held, ROOM - held, 0);
        if (count < 0) break;  // a reset ends this client, and nobody else
        if (count == 0) {
            if (held > 0) answer(client, buffer, held);  // the last line may lack its newline
            break;
        }
        if (held == 0) since = now_ms();
        held += count;
        // The count is what recv returned: strlen would end at a zero byte.
        char *start = buffer, *newline;
        while ((newline = memchr(start, '\n', buffer + held - start)) != NULL) {
            if (answer(client, start, newline + 1 - start) < 0) goto gone;
            start = newline + 1;
            since = now_ms();
        }
        held -= start - buffer;
        memmove(buffer, start, held);
        if (held == ROOM) {
            static const char WORDS[] = "too long: a line may have at most 65535 bytes\n";
            if (send_all(client, WORDS, strlen(WORDS), 0) == 0) say_goodbye(client);
            break;
        }
    }
gone:
    free(buffer);
}

static void *serve(void *argument) {
    int client = (int)(long)argument;
    struct timeval patience = {deadline_ms / 1000, deadline_ms % 1000 * 1000};
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    talk(client);
    close(client);
    if (write(places[1], "", 1) < 0) perror("write");
    return NULL;
}

// Waits until one of them is readable, or the stop is; whether it is the former.
static int wait_for(int descriptor) {
    struct pollfd watched[] = {{descriptor, POLLIN, 0}, {stop_pipe[0], POLLIN, 0}};
    while (poll(watched, 2, -1) < 0) continue;
    return watched[1].revents == 0;
}

int main(int count, char **words) {
    const char *address = count > 1 ? words[1] : "127.0.0.1:8080";
    int limit = count > 2 ? atoi(words[2]) : 64;
    deadline_ms = (count > 3 ? atof(words[3]) : 30) * 1000;
    if (pipe(stop_pipe) < 0 || pipe(places) < 0) return perror("pipe"), 1;
    for (int place = 0; place < limit; place++)
        if (write(places[1], "", 1) < 0) return perror("write"), 1;
    signal(SIGINT, on_interrupt);
    signal(SIGPIPE, SIG_IGN);  // or the first client that leaves while it is answered ends us all

    char host[64] = "";
    const char *colon = strrchr(address, ':');
    if (colon == NULL || (size_t)(colon - address) >= sizeof host) return fprintf(stderr, "HOST:PORT\n"), 2;
    memcpy(host, address, colon - address);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(colon + 1))};
    if (inet_pton(AF_INET, host, &at.sin_addr) != 1) return fprintf(stderr, "an IPv4 address, please\n"), 2;

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);  // so that it can be started again at once
    socklen_t size = sizeof at;
    if (bind(listener, (struct sockaddr *)&at, size) < 0 || listen(listener, 1024) < 0) return perror(address), 2;
    getsockname(listener, (struct sockaddr *)&at, &size);
    printf("listening on %s:%d\n", host, ntohs(at.sin_port));
    fflush(stdout);

    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    char place;
    // First a place, then a client: without a place the next one waits in the kernel's queue.
    while (wait_for(places[0]) && read(places[0], &place, 1) == 1) {
        int client = -1;
        pthread_t thread;
        if (wait_for(listener)) client = accept(listener, NULL, NULL);
        if (client >= 0 && pthread_create(&thread, &detached, serve, (void *)(long)client) == 0) continue;
        // Stopped, or gone again, or no descriptors left: then a pause, or this would go round without end.
        if (write(places[1], "", 1) < 0) perror("write");
        if (client >= 0) close(client);
        else poll(NULL, 0, 50);
    }
    close(listener);
    for (int back = 0; back < limit; back++)  // until every place has come back
        while (read(places[0], &place, 1) != 1) continue;
    return 0;
}
