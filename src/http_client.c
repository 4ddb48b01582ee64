/*-------------------------------------------------------------------------
 *
 * http_client.c
 *	  HTTP over libcurl's multi interface, inside a PostgreSQL process.
 *
 * One wait.  libcurl tells through callbacks which sockets it waits for and
 * until when (curl_multi_socket_action).  Those sockets, MyLatch and the death
 * of the postmaster go into one WaitEventSet, so the process sleeps until
 * there is something to do and is never deaf to a signal.  Entries can't be
 * taken out of a WaitEventSet, so it is built anew after libcurl's wishes have
 * changed; that is a few system calls next to a round trip over the network.
 *
 * Callbacks.  They run on libcurl's stack, which no longjmp may cross.  So
 * they neither raise errors nor allocate from PostgreSQL's contexts: they copy
 * into malloc'd, capped memory and return a code.  libcurl itself never gets
 * memory of PostgreSQL's.
 *
 * Signals.  Looking up a host name may start a thread.  A thread inherits the
 * signal mask, and PostgreSQL's handlers must never run in a second thread, so
 * all signals are blocked around each call into libcurl.  None of these calls
 * waits for the network.
 *
 * Trust.  https only, except to the loopback addresses; certificate and host
 * name verified; TLS 1.2 at least; no redirects, since an answer could send
 * the key elsewhere.  Proxies are off: the environment of a database server is
 * set by whoever wrote its start script, and a forgotten http_proxy there must
 * not see or stop payments.  HTTP/1.1, so that one broken connection means one
 * request to repeat and not all of them.
 *
 * libcurl silently repeats a POST if a connection that it re-uses turns out to
 * be closed.  A caller must send only what may be repeated.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include <curl/curl.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "http_client.h"

#if LIBCURL_VERSION_NUM < 0x074A00
#error "stripe_lifecycle requires libcurl 7.74 or later"
#endif

/* The first two entries of the wait set; sockets follow. */
#define FIXED_EVENTS 2

typedef struct Socket
{
	curl_socket_t fd;
	uint32		events;			/* WL_SOCKET_* */
} Socket;

struct SlHttpClient
{
	CURLM	   *multi;
	int			reserved_fds;

	/* what libcurl waits for */
	Socket	   *sockets;
	int			nsockets;
	int			max_sockets;
	bool		sockets_changed;
	int64		timer_at;		/* monotonic ms, or -1 */

	WaitEventSet *set;
	WaitEvent  *events;			/* FIXED_EVENTS + max_sockets */

	SlHttpExchange *finished;	/* first to end, first in the list */
	SlHttpExchange **finished_tail;
};

struct SlHttpExchange
{
	SlHttpExchange *next;
	CURL	   *easy;
	struct curl_slist *headers;
	void	   *tag;
	size_t		max_body;
	size_t		body_size;		/* allocated */
	const char *const *wanted;
	int			nwanted;
	SlHttpResponse response;
};

/* ---------- small things ---------- */

static int64
monotonic_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* All but those which a fault in this very thread raises. */
static void
block_signals(sigset_t *saved)
{
	sigset_t	all;

	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGTRAP);
	sigdelset(&all, SIGABRT);
	(void) pthread_sigmask(SIG_SETMASK, &all, saved);
}

static void
restore_signals(const sigset_t *saved)
{
	(void) pthread_sigmask(SIG_SETMASK, saved, NULL);
}

/* http:// is for the loopback addresses only, whatever the caller checked. */
static bool
is_loopback_http(const char *url)
{
	static const char *const bases[] = {
		"http://127.0.0.1", "http://localhost", "http://[::1]"
	};
	size_t		i;

	for (i = 0; i < lengthof(bases); i++)
	{
		size_t		len = strlen(bases[i]);

		if (strncmp(url, bases[i], len) == 0 &&
			(url[len] == '\0' || url[len] == ':' || url[len] == '/') &&
			strchr(url, '@') == NULL)
			return true;
	}
	return false;
}

/* ---------- libcurl's callbacks: no ereport, no palloc ---------- */

static Socket *
find_socket(SlHttpClient *client, curl_socket_t fd)
{
	int			i;

	for (i = 0; i < client->nsockets; i++)
	{
		if (client->sockets[i].fd == fd)
			return &client->sockets[i];
	}
	return NULL;
}

static bool
grow_sockets(SlHttpClient *client)
{
	int			n = client->max_sockets * 2 + 16;
	Socket	   *sockets;
	WaitEvent  *events;

	sockets = realloc(client->sockets, n * sizeof(Socket));
	if (sockets == NULL)
		return false;
	client->sockets = sockets;
	events = realloc(client->events, (n + FIXED_EVENTS) * sizeof(WaitEvent));
	if (events == NULL)
		return false;
	client->events = events;
	client->max_sockets = n;
	return true;
}

/* CURLMOPT_SOCKETFUNCTION: -1 makes libcurl fail its transfers. */
static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	SlHttpClient *client = arg;
	Socket	   *s = find_socket(client, fd);
	uint32		events = 0;

	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= WL_SOCKET_READABLE;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= WL_SOCKET_WRITEABLE;

	if (what == CURL_POLL_REMOVE)
	{
		if (s != NULL)
			*s = client->sockets[--client->nsockets];
	}
	else if (s != NULL)
		s->events = events;
	else
	{
		if (client->nsockets == client->max_sockets && !grow_sockets(client))
			return -1;
		client->sockets[client->nsockets].fd = fd;
		client->sockets[client->nsockets].events = events;
		client->nsockets++;
	}
	client->sockets_changed = true;
	return 0;
}

/* CURLMOPT_TIMERFUNCTION */
static int
on_timer(CURLM *multi, long timeout_ms, void *arg)
{
	SlHttpClient *client = arg;

	client->timer_at = timeout_ms < 0 ? -1 : monotonic_ms() + timeout_ms;
	return 0;
}

static bool
grow_body(SlHttpExchange *x, size_t needed)
{
	size_t		size = x->body_size == 0 ? 4096 : x->body_size;
	char	   *body;

	while (size < needed)
		size *= 2;
	if (size == x->body_size)
		return true;
	body = realloc(x->response.body, size);
	if (body == NULL)
		return false;
	x->response.body = body;
	x->body_size = size;
	return true;
}

/* CURLOPT_WRITEFUNCTION: anything but the full count ends the transfer. */
static size_t
on_body(char *data, size_t size, size_t count, void *arg)
{
	SlHttpExchange *x = arg;
	size_t		len = size * count;
	size_t		room = x->max_body - x->response.body_len;
	size_t		take = len < room ? len : room;

	if (take < len)
		x->response.too_large = true;
	if (!grow_body(x, x->response.body_len + take + 1))
		return 0;
	memcpy(x->response.body + x->response.body_len, data, take);
	x->response.body_len += take;
	x->response.body[x->response.body_len] = '\0';
	return take;
}

/*
 * The value of header "name", if that is what this line has.  Header names
 * know no case (RFC 9110 5.1).
 */
static bool
header_value(const char *line, size_t len, const char *name,
			 const char **value, size_t *value_len)
{
	size_t		n = strlen(name);

	if (len <= n || line[n] != ':' || pg_strncasecmp(line, name, n) != 0)
		return false;
	line += n + 1;
	len -= n + 1;
	while (len > 0 && (line[0] == ' ' || line[0] == '\t'))
		line++, len--;
	while (len > 0 && isspace((unsigned char) line[len - 1]))
		len--;
	*value = line;
	*value_len = len;
	return true;
}

/*
 * CURLOPT_HEADERFUNCTION: one line at a time.  A status line begins another
 * answer (after "100 Continue"), so what came before it no longer counts.
 */
static size_t
on_header(char *line, size_t size, size_t count, void *arg)
{
	SlHttpExchange *x = arg;
	size_t		len = size * count;
	int			i;

	if (len >= 5 && memcmp(line, "HTTP/", 5) == 0)
		memset(x->response.values, 0, sizeof(x->response.values));
	for (i = 0; i < x->nwanted; i++)
	{
		const char *value;
		size_t		n;

		if (header_value(line, len, x->wanted[i], &value, &n) &&
			n < SL_HTTP_VALUE_MAX)
		{
			memcpy(x->response.values[i], value, n);
			x->response.values[i][n] = '\0';
		}
	}
	return len;
}

/* ---------- the client ---------- */

static bool
set_up_multi(SlHttpClient *client, int max_connections)
{
	CURLM	   *m = client->multi;

	return curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, on_socket) == CURLM_OK &&
		curl_multi_setopt(m, CURLMOPT_SOCKETDATA, client) == CURLM_OK &&
		curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, on_timer) == CURLM_OK &&
		curl_multi_setopt(m, CURLMOPT_TIMERDATA, client) == CURLM_OK &&
		curl_multi_setopt(m, CURLMOPT_MAXCONNECTS, (long) max_connections) == CURLM_OK;
}

/*
 * Returns NULL, and a constant text in *error, if libcurl does not work.
 *
 * Called in the process that is going to use it and never before a fork:
 * neither libcurl's nor OpenSSL's state may be shared.
 */
SlHttpClient *
sl_http_new(int max_connections, const char **error)
{
	SlHttpClient *client = calloc(1, sizeof(SlHttpClient));
	sigset_t	saved;
	bool		ok = false;

	*error = "out of memory";
	if (client == NULL)
		return NULL;
	client->timer_at = -1;
	client->finished_tail = &client->finished;
	client->sockets_changed = true;

	block_signals(&saved);
	if (grow_sockets(client) &&
		curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK)
	{
		*error = "libcurl could not be initialized";
		client->multi = curl_multi_init();
		ok = client->multi != NULL && set_up_multi(client, max_connections);
	}
	restore_signals(&saved);
	if (!ok)
	{
		sl_http_free(client);
		return NULL;
	}

	/* sockets that fd.c does not open must not take its last descriptors */
	while (client->reserved_fds < max_connections)
	{
		ReserveExternalFD();
		client->reserved_fds++;
	}
	*error = NULL;
	return client;
}

/* Only when nothing is under way; connections are closed in good order. */
void
sl_http_free(SlHttpClient *client)
{
	sigset_t	saved;

	block_signals(&saved);
	if (client->multi != NULL)
		curl_multi_cleanup(client->multi);
	restore_signals(&saved);
	if (client->set != NULL)
		FreeWaitEventSet(client->set);
	while (client->reserved_fds-- > 0)
		ReleaseExternalFD();
	free(client->sockets);
	free(client->events);
	free(client);
}

/* ---------- an exchange ---------- */

/* Frees the header lines; one of them has the key in it. */
static void
free_headers(SlHttpExchange *x)
{
	struct curl_slist *h;

	for (h = x->headers; h != NULL; h = h->next)
		explicit_bzero(h->data, strlen(h->data));
	curl_slist_free_all(x->headers);
	x->headers = NULL;
}

/* The body goes with it, wiped: it may hold a customer's client secret. */
void
sl_http_exchange_free(SlHttpExchange *x)
{
	if (x->easy != NULL)
		curl_easy_cleanup(x->easy);
	free_headers(x);
	if (x->response.body != NULL)
		explicit_bzero(x->response.body, x->body_size);
	free(x->response.body);
	free(x);
}

static bool
add_header(SlHttpExchange *x, const char *line)
{
	struct curl_slist *longer = curl_slist_append(x->headers, line);

	if (longer == NULL)
		return false;
	x->headers = longer;
	return true;
}

static bool
add_bearer(SlHttpExchange *x, const char *token)
{
	static const char prefix[] = "Authorization: Bearer ";
	size_t		size = sizeof(prefix) + strlen(token);
	char	   *line = malloc(size);
	bool		ok;

	if (line == NULL)
		return false;
	snprintf(line, size, "%s%s", prefix, token);
	ok = add_header(x, line);
	explicit_bzero(line, size);
	free(line);
	return ok;
}

static bool
add_headers(SlHttpExchange *x, const SlHttpRequest *request)
{
	int			i;

	/* no waiting for "100 Continue" before a large body */
	if (!add_header(x, "Expect:"))
		return false;
	for (i = 0; i < request->nheaders; i++)
	{
		if (!add_header(x, request->headers[i]))
			return false;
	}
	return request->bearer == NULL || add_bearer(x, request->bearer);
}

#define SET(option, value) (curl_easy_setopt(x->easy, (option), (value)) == CURLE_OK)

static bool
set_protocols(SlHttpExchange *x, const char *url)
{
	bool		plain = is_loopback_http(url);

#if LIBCURL_VERSION_NUM >= 0x075500
	return SET(CURLOPT_PROTOCOLS_STR, plain ? "http,https" : "https");
#else
	return SET(CURLOPT_PROTOCOLS,
			   (long) (plain ? CURLPROTO_HTTP | CURLPROTO_HTTPS : CURLPROTO_HTTPS));
#endif
}

/* What is the same for every request. */
static bool
set_policy(SlHttpExchange *x)
{
#if LIBCURL_VERSION_NUM >= 0x075700
	/* don't wait for a thread that looks up a name nobody asks for any more */
	if (!SET(CURLOPT_QUICK_EXIT, 1L))
		return false;
#endif
	return SET(CURLOPT_NOSIGNAL, 1L) &&
		SET(CURLOPT_FOLLOWLOCATION, 0L) &&
		SET(CURLOPT_SSL_VERIFYPEER, 1L) &&
		SET(CURLOPT_SSL_VERIFYHOST, 2L) &&
		SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2) &&
		SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1) &&
		SET(CURLOPT_PROXY, "") &&
		SET(CURLOPT_TCP_KEEPALIVE, 1L) &&
		SET(CURLOPT_WRITEFUNCTION, on_body) &&
		SET(CURLOPT_WRITEDATA, x) &&
		SET(CURLOPT_HEADERFUNCTION, on_header) &&
		SET(CURLOPT_HEADERDATA, x) &&
		SET(CURLOPT_PRIVATE, x);
}

static bool
set_request(SlHttpExchange *x, const SlHttpRequest *request)
{
	if (!set_protocols(x, request->url) ||
		!SET(CURLOPT_URL, request->url) ||
		!SET(CURLOPT_CONNECTTIMEOUT_MS, (long) request->connect_timeout_ms) ||
		!SET(CURLOPT_TIMEOUT_MS, (long) request->timeout_ms) ||
		!SET(CURLOPT_HTTPHEADER, x->headers))
		return false;
	if (request->body != NULL &&
		(!SET(CURLOPT_POST, 1L) ||
		 !SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) request->body_len) ||
		 !SET(CURLOPT_COPYPOSTFIELDS, request->body)))
		return false;
	return SET(CURLOPT_CUSTOMREQUEST, request->method);
}

#undef SET

/*
 * Begins an exchange; nothing is sent before the next sl_http_wait().  False
 * if that is impossible, with a constant text in *error.
 */
bool
sl_http_start(SlHttpClient *client, const SlHttpRequest *request, void *tag,
			  const char **error)
{
	SlHttpExchange *x = calloc(1, sizeof(SlHttpExchange));
	sigset_t	saved;
	bool		ok;

	Assert(request->nwanted <= SL_HTTP_MAX_WANTED);
	*error = "out of memory";
	if (x == NULL)
		return false;
	x->tag = tag;
	x->max_body = request->max_body;
	x->wanted = request->wanted;
	x->nwanted = request->nwanted;

	block_signals(&saved);
	x->easy = curl_easy_init();
	ok = x->easy != NULL && add_headers(x, request);
	if (ok)
	{
		*error = "the request could not be prepared";
		ok = set_policy(x) && set_request(x, request) &&
			curl_multi_add_handle(client->multi, x->easy) == CURLM_OK;
	}
	if (!ok)
		sl_http_exchange_free(x);
	restore_signals(&saved);
	return ok;
}

/* Which phase a timeout hit, as far as libcurl's time stamps tell. */
static const char *
timeout_text(CURL *easy)
{
	curl_off_t	resolved = 0;
	curl_off_t	connected = 0;
	curl_off_t	sent = 0;

	(void) curl_easy_getinfo(easy, CURLINFO_NAMELOOKUP_TIME_T, &resolved);
	(void) curl_easy_getinfo(easy, CURLINFO_CONNECT_TIME_T, &connected);
	(void) curl_easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &sent);

	/* a connection that was used before has no times for the first phases */
	if (sent > 0)
		return "timeout while waiting for the answer";
	if (connected > 0)
		return "timeout while TLS was negotiated";
	if (resolved > 0)
		return "timeout while connecting";
	return "timeout while the host name was looked up";
}

/* Moves an exchange that has ended, well or not, to the finished ones. */
static void
finish(SlHttpClient *client, CURL *easy, CURLcode code)
{
	SlHttpExchange *x = NULL;
	long		status = 0;
	curl_off_t	us = 0;

	(void) curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &x);
	(void) curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	(void) curl_easy_getinfo(easy, CURLINFO_TOTAL_TIME_T, &us);
	x->response.status = (int) status;
	x->response.duration_ms = us / 1000.0;

	if (code == CURLE_OPERATION_TIMEDOUT)
		x->response.error = timeout_text(easy);
	else if (code == CURLE_WRITE_ERROR && x->response.too_large)
		x->response.error = NULL;
	else if (code != CURLE_OK)
		x->response.error = curl_easy_strerror(code);

	(void) curl_multi_remove_handle(client->multi, easy);
	curl_easy_cleanup(easy);
	x->easy = NULL;
	free_headers(x);
	*client->finished_tail = x;
	client->finished_tail = &x->next;
}

static void
collect_finished(SlHttpClient *client)
{
	CURLMsg    *msg;
	int			left;

	while ((msg = curl_multi_info_read(client->multi, &left)) != NULL)
	{
		if (msg->msg == CURLMSG_DONE)
			finish(client, msg->easy_handle, msg->data.result);
	}
}

/* ---------- waiting ---------- */

static void
rebuild_wait_set(SlHttpClient *client)
{
	int			i;

	if (client->set != NULL)
	{
		WaitEventSet *old = client->set;

		client->set = NULL;
		FreeWaitEventSet(old);
	}
	client->set = sl_create_wait_event_set(FIXED_EVENTS + client->nsockets);
	AddWaitEventToSet(client->set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(client->set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (i = 0; i < client->nsockets; i++)
	{
		if (client->sockets[i].events != 0)
			AddWaitEventToSet(client->set, client->sockets[i].events,
							  client->sockets[i].fd, NULL, NULL);
	}
	client->sockets_changed = false;
}

/* Until libcurl's timer or the caller's, whichever is first; -1: neither. */
static long
wait_time(SlHttpClient *client, long timeout_ms)
{
	int64		timer;

	if (client->finished != NULL)
		return 0;
	if (client->timer_at < 0)
		return timeout_ms;
	timer = Max(client->timer_at - monotonic_ms(), 0);
	return timeout_ms < 0 ? (long) timer : (long) Min(timer, timeout_ms);
}

/* Tells libcurl what happened, and takes what has ended from it. */
static void
drive(SlHttpClient *client, int nevents)
{
	sigset_t	saved;
	int			running;
	int			i;

	block_signals(&saved);
	for (i = 0; i < nevents; i++)
	{
		WaitEvent  *event = &client->events[i];
		int			what = 0;

		if (event->events & WL_SOCKET_READABLE)
			what |= CURL_CSELECT_IN;
		if (event->events & WL_SOCKET_WRITEABLE)
			what |= CURL_CSELECT_OUT;
		if (what != 0)
			(void) curl_multi_socket_action(client->multi, event->fd, what, &running);
	}
	if (client->timer_at >= 0 && client->timer_at <= monotonic_ms())
	{
		client->timer_at = -1;
		(void) curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	collect_finished(client);
	restore_signals(&saved);
}

/*
 * Sleeps until MyLatch is set, something happens on the network, or
 * timeout_ms have passed (-1: for ever), and does what the network asks for.
 * Resetting the latch and looking at interrupts is the caller's business.
 */
void
sl_http_wait(SlHttpClient *client, long timeout_ms, uint32 wait_event_info)
{
	int			n;

	/* a new exchange only begins once libcurl's timer has fired */
	drive(client, 0);
	if (client->sockets_changed)
		rebuild_wait_set(client);
	n = WaitEventSetWait(client->set, wait_time(client, timeout_ms),
						 client->events, FIXED_EVENTS + client->max_sockets,
						 wait_event_info);
	drive(client, n);
}

/* ---------- results ---------- */

/* The next exchange that has ended, or NULL; it is the caller's to free. */
SlHttpExchange *
sl_http_next_finished(SlHttpClient *client)
{
	SlHttpExchange *x = client->finished;

	if (x != NULL)
	{
		client->finished = x->next;
		if (client->finished == NULL)
			client->finished_tail = &client->finished;
		x->next = NULL;
	}
	return x;
}

void *
sl_http_tag(SlHttpExchange *exchange)
{
	return exchange->tag;
}

const SlHttpResponse *
sl_http_response(SlHttpExchange *exchange)
{
	return &exchange->response;
}
