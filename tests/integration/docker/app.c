/* What the containers of the tests run: a static HTTP/1.1 server that says its name and repeats the request's head.
   /slow answers after 300 ms, /sick and /well turn /health; `app check` asks /health, as a health check does. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile int *sick;

static void end(int signal) { (void)signal; _exit(0); }

static void serve(int fd) {
    static char head[65536], body[70000], out[71000];
    size_t have = 0;
    for (;;) {
        char *stop;
        head[have] = 0;
        while (!(stop = strstr(head, "\r\n\r\n"))) {
            ssize_t n = have < sizeof head - 1 ? read(fd, head + have, sizeof head - 1 - have) : 0;
            if (n <= 0) _exit(0);
            have += n;
            head[have] = 0;
        }
        size_t length = stop + 4 - head, content = 0;
        char *field = strcasestr(head, "\r\ncontent-length:");
        if (field && field < stop) content = strtoul(field + 17, 0, 10);
        while (have < length + content) {
            ssize_t n = have < sizeof head - 1 ? read(fd, head + have, sizeof head - 1 - have) : 0;
            if (n <= 0) _exit(0);
            have += n;
        }
        const char *path = strchr(head, ' ') ? strchr(head, ' ') + 1 : head, *status = "200 OK";
        if (!strncmp(path, "/slow", 5)) usleep(300000);
        if (!strncmp(path, "/sick", 5)) *sick = 1;
        if (!strncmp(path, "/well", 5)) *sick = 0;
        if (!strncmp(path, "/health", 7) && *sick) status = "503 Sick";
        const char *name = getenv("NAME"), *cache = getenv("CACHE_CONTROL");
        int b = snprintf(body, sizeof body, "name=%s\n%.*s", name ? name : "", (int)length, head);
        int o = snprintf(out, sizeof out,
                         "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nCache-Control: %s\r\nContent-Length: %d\r\n\r\n%s",
                         status, cache ? cache : "no-store", !strncmp(head, "HEAD ", 5) ? 0 : b,
                         !strncmp(head, "HEAD ", 5) ? "" : body);
        for (int sent = 0; sent < o;) {
            ssize_t n = write(fd, out + sent, o - sent);
            if (n <= 0) _exit(0);
            sent += n;
        }
        memmove(head, head + length + content, have - length - content);
        have -= length + content;
    }
}

static int check(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char answer[64] = {0};
    const char *ask = "GET /health HTTP/1.1\r\nHost: check\r\n\r\n";
    if (connect(fd, (struct sockaddr *)&at, sizeof at) || write(fd, ask, strlen(ask)) < 0 || read(fd, answer, 63) <= 0)
        return 1;
    return strncmp(answer, "HTTP/1.1 200", 12) != 0;
}

int main(int argc, char **argv) {
    int port = getenv("PORT") ? atoi(getenv("PORT")) : 80, one = 1, off = 0;
    if (argc > 1 && !strcmp(argv[1], "check")) return check(port);
    /* The first process of a container has no default for signals. */
    signal(SIGTERM, end);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    sick = mmap(0, sizeof *sick, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (getenv("SICK")) *sick = 1;
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_ANY_INIT};
    int listener = socket(AF_INET6, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 512)) return 1;
    for (;;) {
        int fd = accept(listener, 0, 0);
        if (fd < 0) continue;
        if (!fork()) {
            close(listener);
            serve(fd);
        }
        close(fd);
    }
}
