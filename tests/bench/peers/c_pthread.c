// The plain echo server in C: a thread for each connection, blocking reads and writes. With -DREAD_TIMEOUT=600, a read
// waits for so many seconds at most.
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void *serve(void *argument) {
    int client = (int)(long)argument;
    char buffer[64 * 1024];
    ssize_t count;
#ifdef READ_TIMEOUT
    struct timeval timeout = {.tv_sec = READ_TIMEOUT};
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
#endif
    while ((count = recv(client, buffer, sizeof buffer, 0)) > 0) {
        for (ssize_t sent = 0; sent < count;) {
            ssize_t more = send(client, buffer + sent, count - sent, 0);
            if (more < 0) {
                close(client);
                return NULL;
            }
            sent += more;
        }
    }
    close(client);
    return NULL;
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 4096) != 0) {
        perror("listen");
        return 1;
    }
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);

    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) continue;
        pthread_t thread;
        if (pthread_create(&thread, &detached, serve, (void *)(long)client) != 0) close(client);
    }
}
