/* A sink that answers as APNs does: it reads the whole request, answers 200 with the request's
 * apns-id, and resets no stream. One thread, epoll, libnghttp2 and OpenSSL.
 *
 *   cc -O2 -o apns_sink apns_sink.c -lnghttp2 -lssl -lcrypto
 *   apns_sink --cert FILE --key FILE [--port N] [--streams N] [--window BYTES] [--unique-id]
 *
 * Prints one JSON line with its port and serves on 127.0.0.1 until standard input closes. For each byte
 * that it reads there, it prints a line with the requests answered and the CPU seconds taken so far.
 * The window is that of a connection and of each stream: what was read is granted again after each read.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK 65536
#define ID_LENGTH 64

struct stream {
    struct stream *next; /* in the list of those that are free */
    uint8_t id[ID_LENGTH];
    size_t id_length;
};

struct connection {
    int fd;
    int accepted; /* TLS is complete */
    SSL *tls;
    nghttp2_session *session;
    uint8_t out[CHUNK];
    size_t out_length;
    size_t out_at;
    uint32_t read; /* bytes of bodies since the last grant */
    uint32_t kept; /* bytes that are not granted again: the window is to be smaller than the first */
};

#define FIRST_WINDOW 65535 /* of every connection: RFC 9113, section 6.9.2 */

static uint32_t max_streams = 1000, window = 65535;
static int with_unique_id = 0;
static uint64_t answered = 0;
static struct stream *free_streams = NULL;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static struct stream *stream_new(void) {
    struct stream *stream = free_streams;
    if (stream)
        free_streams = stream->next;
    else if (!(stream = malloc(sizeof *stream)))
        die("malloc");
    stream->id_length = 0;
    return stream;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    (void)user;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream_new());
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_length, const uint8_t *value, size_t value_length, uint8_t flags,
                     void *user) {
    (void)flags;
    (void)user;
    if (name_length == 7 && memcmp(name, "apns-id", 7) == 0 && value_length <= ID_LENGTH) {
        struct stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        if (stream) {
            memcpy(stream->id, value, value_length);
            stream->id_length = value_length;
        }
    }
    return 0;
}

static nghttp2_nv field(const char *name, size_t name_length, const uint8_t *value, size_t length) {
    nghttp2_nv nv = {(uint8_t *)name, (uint8_t *)value, name_length, length,
                     NGHTTP2_NV_FLAG_NO_INDEX | NGHTTP2_NV_FLAG_NO_COPY_NAME};
    return nv;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    (void)user;
    if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM) ||
        (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS))
        return 0;
    struct stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!stream)
        return 0;
    static uint64_t number = 0;
    char unique[40];
    nghttp2_nv fields[3];
    size_t count = 0;
    fields[count++] = field(":status", 7, (const uint8_t *)"200", 3);
    fields[count++] = field("apns-id", 7, stream->id, stream->id_length);
    if (with_unique_id) {
        uint64_t mixed = ++number * 0x9E3779B97F4A7C15ull;
        int length = snprintf(unique, sizeof unique, "%08X-%04X-4%03X-9%03X-%012llX",
                              (unsigned)(mixed >> 32), (unsigned)(mixed >> 16) & 0xFFFF,
                              (unsigned)mixed & 0xFFF, (unsigned)(mixed >> 40) & 0xFFF,
                              (unsigned long long)(mixed ^ number) & 0xFFFFFFFFFFFFull);
        fields[count++] = field("apns-unique-id", 14, (const uint8_t *)unique, (size_t)length);
    }
    answered++;
    return nghttp2_submit_response(session, frame->hd.stream_id, fields, count, NULL);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t length, void *user) {
    (void)session;
    (void)flags;
    (void)id;
    (void)data;
    ((struct connection *)user)->read += (uint32_t)length;
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user) {
    (void)code;
    (void)user;
    struct stream *stream = nghttp2_session_get_stream_user_data(session, id);
    if (stream) {
        stream->next = free_streams;
        free_streams = stream;
    }
    return 0;
}

static int choose_h2(SSL *tls, const unsigned char **out, unsigned char *out_length,
                     const unsigned char *in, unsigned int in_length, void *argument) {
    (void)tls;
    (void)argument;
    return nghttp2_select_next_protocol((unsigned char **)out, out_length, in, in_length) == 1
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Write what the session has to say. Return 1 when the socket takes no more, -1 at the end. */
static int flush_out(struct connection *c) {
    for (;;) {
        while (c->out_length < CHUNK) {
            static const uint8_t *rest;
            static size_t rest_length;
            ssize_t length = nghttp2_session_mem_send(c->session, &rest);
            if (length < 0)
                return -1;
            if (length == 0)
                break;
            rest_length = (size_t)length;
            if (c->out_length + rest_length > CHUNK)
                return -1; /* larger than any frame of ours */
            memcpy(c->out + c->out_length, rest, rest_length);
            c->out_length += rest_length;
            if (c->out_length > CHUNK - 16384 - 9)
                break;
        }
        if (c->out_at == c->out_length)
            return 0;
        while (c->out_at < c->out_length) {
            int sent = SSL_write(c->tls, c->out + c->out_at, (int)(c->out_length - c->out_at));
            if (sent <= 0) {
                int error = SSL_get_error(c->tls, sent);
                return error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ ? 1 : -1;
            }
            c->out_at += (size_t)sent;
        }
        c->out_at = c->out_length = 0;
    }
}

static int start_session(struct connection *c, const nghttp2_session_callbacks *callbacks) {
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, max_streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window},
    };
    nghttp2_option *option;
    if (nghttp2_option_new(&option))
        return -1;
    nghttp2_option_set_no_auto_window_update(option, 1);
    int failed = nghttp2_session_server_new2(&c->session, callbacks, c, option);
    nghttp2_option_del(option);
    if (failed)
        return -1;
    c->kept = window < FIRST_WINDOW ? FIRST_WINDOW - window : 0;
    if (nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, 2))
        return -1;
    return window <= FIRST_WINDOW
               ? 0
               : nghttp2_submit_window_update(c->session, NGHTTP2_FLAG_NONE, 0,
                                              (int32_t)(window - FIRST_WINDOW));
}

/* Grant the connection what was read, less what is to be kept. */
static int grant(struct connection *c) {
    uint32_t kept = c->kept < c->read ? c->kept : c->read, given = c->read - kept;
    c->kept -= kept;
    c->read = 0;
    return given ? nghttp2_submit_window_update(c->session, NGHTTP2_FLAG_NONE, 0, (int32_t)given)
                 : 0;
}

static void report(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"answered\": %llu, \"cpu\": %.6f}\n", (unsigned long long)answered,
           (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
               (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    fflush(stdout);
}

/* Read, answer, write. Return -1 when the connection is over. */
static int serve(struct connection *c, const nghttp2_session_callbacks *callbacks) {
    static uint8_t buffer[CHUNK];
    if (!c->accepted) {
        int done = SSL_accept(c->tls);
        if (done <= 0) {
            int error = SSL_get_error(c->tls, done);
            return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
        }
        c->accepted = 1;
        if (start_session(c, callbacks))
            return -1;
    }
    for (;;) {
        int state = flush_out(c);
        if (state)
            return state < 0 ? -1 : 0;
        size_t have = 0;
        int length = 0;
        while (have + 16384 <= sizeof buffer &&
               (length = SSL_read(c->tls, buffer + have, (int)(sizeof buffer - have))) > 0)
            have += (size_t)length;
        if (have && (nghttp2_session_mem_recv(c->session, buffer, have) < 0 || grant(c)))
            return -1;
        if (length <= 0) {
            int error = SSL_get_error(c->tls, length);
            if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
                return -1;
            if (!have)
                return 0;
        }
    }
}

static void end(struct connection *c) {
    nghttp2_session_del(c->session);
    SSL_free(c->tls);
    close(c->fd);
    free(c);
}

int main(int argc, char **argv) {
    const char *cert = NULL, *key = NULL;
    int port = 0;
    for (int at = 1; at < argc; at++) {
        const char *value = at + 1 < argc ? argv[at + 1] : "";
        if (!strcmp(argv[at], "--unique-id"))
            with_unique_id = 1;
        else if (!strcmp(argv[at], "--cert"))
            cert = value, at++;
        else if (!strcmp(argv[at], "--key"))
            key = value, at++;
        else if (!strcmp(argv[at], "--port"))
            port = atoi(value), at++;
        else if (!strcmp(argv[at], "--streams"))
            max_streams = (uint32_t)atoi(value), at++;
        else if (!strcmp(argv[at], "--window"))
            window = (uint32_t)atoi(value), at++;
        else
            cert = NULL, at = argc;
    }
    if (!cert || !key) {
        fprintf(stderr, "usage: apns_sink --cert FILE --key FILE [--port N] [--streams N] "
                        "[--window BYTES] [--unique-id]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(context, cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        return 1;
    }
    SSL_CTX_set_alpn_select_cb(context, choose_h2, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);

    nghttp2_session_callbacks *callbacks;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 128) ||
        getsockname(listener, (struct sockaddr *)&address, &size))
        die("listen");
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);

    int poll = epoll_create1(0), serving = 1;
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = &listener}}, events[64];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = NULL; /* standard input */
    epoll_ctl(poll, EPOLL_CTL_ADD, 0, &event);
    while (serving) {
        int count = epoll_wait(poll, events, 64, -1);
        for (int at = 0; at < count; at++) {
            if (events[at].data.ptr == NULL) {
                char byte;
                if (read(0, &byte, 1) <= 0)
                    serving = 0;
                else
                    report();
            } else if (events[at].data.ptr == &listener) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0)
                    continue;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                struct connection *c = calloc(1, sizeof *c);
                if (!c)
                    die("calloc");
                c->fd = fd;
                c->tls = SSL_new(context);
                SSL_set_fd(c->tls, fd);
                SSL_set_accept_state(c->tls);
                struct epoll_event wanted = {.events = EPOLLIN | EPOLLOUT | EPOLLET,
                                             .data = {.ptr = c}};
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &wanted);
            } else if (serve(events[at].data.ptr, callbacks) < 0) {
                end(events[at].data.ptr);
            }
        }
    }
    return 0;
}
