/*-------------------------------------------------------------------------
 *
 * secrets.c
 *	  Reads the API key, the webhook signing secrets and the key that signs
 *	  checkpoints from their files.
 *
 * A secret is in no table, no setting and no SQL argument: those show up in
 * dumps, logs and pg_stat_activity.  It is in a file that an administrator
 * puts outside the data directory, so that no base backup carries it, and
 * that only the server can read: the rules are those of ssl_key_file.
 *
 * Files are read when first needed and again after each reload of the
 * configuration.  A file that has become unusable is an error then, not a
 * reason to go on with what it used to hold: whoever revokes a secret must be
 * able to rely on it.
 *
 * Nothing of a file's content is ever shown.  Errors name a line's number, and
 * the path goes to the server's log only, since the caller may be a web role.
 *
 * Webhook secrets are kept as keyed MAC contexts and not as text.  The key for
 * checkpoints, which is needed once in minutes, is not kept at all.  Buffers are
 * wiped as soon as they have been read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "errors.h"
#include "guc.h"
#include "secrets.h"

#define SL_SECRET_FILE_MAX	16384
#define SL_SECRET_MAX		512 /* of one secret; real ones are below 120 */
#define SL_LABEL_MAX		63

#define WEBHOOK_PREFIX "whsec_"

/* Stripe's have 32 and more characters after the prefix. */
#define SHORT_WEBHOOK_SECRET 30

/* What keeps a file from being used; texts in problem_text(). */
typedef enum Problem
{
	FINE,
	NOT_SET,
	NOT_ABSOLUTE,
	IN_DATA_DIRECTORY,
	CANNOT_OPEN,
	NOT_A_FILE,
	WRONG_OWNER,
	WRONG_MODE,
	CANNOT_READ,
	TOO_LARGE,
	EMPTY,
	MALFORMED_LINE,
	TOO_MANY,
	BAD_KEY,
	NO_PRIVATE_KEY,
	OUT_OF_MEMORY
} Problem;

typedef struct Complaint
{
	Problem		problem;
	int			saved_errno;
	int			line;
	SlKeyResult key;			/* of BAD_KEY */
} Complaint;

/* A file's content while it is being read. */
typedef struct FileText
{
	char		data[SL_SECRET_FILE_MAX];
	size_t		len;
	struct stat stat;			/* of the file that was opened */
} FileText;

/* One line of it, blanks around it taken off. */
typedef struct Line
{
	const char *start;
	size_t		len;
	int			number;
} Line;

/* From when and where a file's content is. */
typedef struct Origin
{
	bool		valid;
	TimestampTz reload_time;
	char		path[MAXPGPATH];
} Origin;

static SlWebhookSecret webhook_secrets[SL_MAX_WEBHOOK_SECRETS];
static int	n_webhook_secrets = 0;
static Origin webhook_origin;

static char api_key[SL_SECRET_MAX + 1];
static Origin api_key_origin;

/* ---------- files ---------- */

/*
 * As ssl_key_file: owned by the server's user and closed to everybody else,
 * or owned by root and readable for a group that the server is in.
 */
static Problem
check_file(int fd, struct stat *st)
{
	if (fstat(fd, st) != 0)
		return CANNOT_READ;
	if (!S_ISREG(st->st_mode))
		return NOT_A_FILE;
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return WRONG_OWNER;
	if (st->st_uid == geteuid() && (st->st_mode & (S_IRWXG | S_IRWXO)))
		return WRONG_MODE;
	if (st->st_uid == 0 && (st->st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)))
		return WRONG_MODE;
	return FINE;
}

static Problem
read_all(int fd, FileText *buf)
{
	buf->len = 0;
	for (;;)
	{
		ssize_t		n = read(fd, buf->data + buf->len, sizeof(buf->data) - buf->len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return CANNOT_READ;
		if (n == 0)
			return FINE;
		buf->len += n;
		if (buf->len == sizeof(buf->data))
			return TOO_LARGE;
	}
}

static Problem
check_path(const char *path)
{
	char		canonical[MAXPGPATH];

	if (path == NULL || path[0] == '\0')
		return NOT_SET;
	if (!is_absolute_path(path))
		return NOT_ABSOLUTE;
	strlcpy(canonical, path, sizeof(canonical));
	canonicalize_path(canonical);
	if (path_is_prefix_of_path(DataDir, canonical))
		return IN_DATA_DIRECTORY;
	return FINE;
}

/*
 * Opens, checks and reads.  The checks are made of the open file, so that it
 * cannot be exchanged in between; O_NONBLOCK keeps a FIFO from blocking us.
 */
static bool
read_file(const char *path, FileText *buf, Complaint *complaint)
{
	int			fd;

	complaint->saved_errno = 0;
	complaint->line = 0;
	memset(&buf->stat, 0, sizeof(buf->stat));
	complaint->problem = check_path(path);
	if (complaint->problem != FINE)
		return false;

	fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	if (fd < 0)
	{
		complaint->saved_errno = errno;
		complaint->problem = CANNOT_OPEN;
		return false;
	}
	complaint->problem = check_file(fd, &buf->stat);
	if (complaint->problem == FINE)
		complaint->problem = read_all(fd, buf);
	complaint->saved_errno = errno;
	(void) CloseTransientFile(fd);
	return complaint->problem == FINE;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* The next line that is neither empty nor a comment. */
static bool
next_line(const FileText *buf, size_t *pos, Line *line)
{
	while (*pos < buf->len)
	{
		const char *start = buf->data + *pos;
		const char *end = memchr(start, '\n', buf->len - *pos);

		if (end == NULL)
			end = buf->data + buf->len;
		*pos = (end - buf->data) + 1;
		line->number++;

		while (start < end && is_blank(*start))
			start++;
		while (end > start && is_blank(end[-1]))
			end--;
		line->start = start;
		line->len = end - start;
		if (line->len > 0 && start[0] != '#')
			return true;
	}
	return false;
}

static bool
is_printable(const char *s, size_t len)
{
	size_t		i;

	for (i = 0; i < len; i++)
	{
		if (s[i] <= ' ' || s[i] > '~')
			return false;
	}
	return true;
}

/* Is what was read still what the configuration asks for? */
static bool
is_current(const Origin *origin, const char *path)
{
	return origin->valid && origin->reload_time == PgReloadTime &&
		strcmp(origin->path, path) == 0;
}

static void
set_origin(Origin *origin, const char *path)
{
	origin->valid = true;
	origin->reload_time = PgReloadTime;
	strlcpy(origin->path, path, sizeof(origin->path));
}

/* What is wrong with a file that could be opened and read. */
static const char *
flaw_text(Problem problem)
{
	switch (problem)
	{
		case NOT_ABSOLUTE:
			return "is not named by an absolute path";
		case IN_DATA_DIRECTORY:
			return "lies in the data directory, which every copy of the server carries along";
		case NOT_A_FILE:
			return "is not a regular file";
		case WRONG_OWNER:
			return "is not owned by the server's user or by root";
		case WRONG_MODE:
			return "may be accessed by others: it needs mode 0600 or less, or 0640 or less if root owns it";
		case TOO_LARGE:
			return "is too large";
		case EMPTY:
			return "holds no secret";
		case TOO_MANY:
			return "holds too many secrets";
		case NO_PRIVATE_KEY:
			return "holds no private key to sign with";
		default:
			return "could not be used: out of memory";
	}
}

/*
 * What is wrong, as a sentence in a static buffer.  With the file's path it
 * is for the log only; without one (NULL) clients may read it.
 */
static const char *
problem_text(const Complaint *complaint, const char *path, const char *setting)
{
	static char message[MAXPGPATH + 256];
	char		file[MAXPGPATH + 16] = "The file";

	if (path != NULL)
		snprintf(file, sizeof(file), "File \"%s\"", path);
	switch (complaint->problem)
	{
		case FINE:
			return "";
		case NOT_SET:
			snprintf(message, sizeof(message), "\"%s\" is not set.", setting);
			break;
		case CANNOT_OPEN:
		case CANNOT_READ:
			snprintf(message, sizeof(message), "%s could not be %s: %s.", file,
					 complaint->problem == CANNOT_OPEN ? "opened" : "read",
					 strerror(complaint->saved_errno));
			break;
		case MALFORMED_LINE:
			snprintf(message, sizeof(message), "%s is malformed in line %d.",
					 file, complaint->line);
			break;
		case BAD_KEY:
			snprintf(message, sizeof(message), "%s %s.", file,
					 sl_key_result_text(complaint->key));
			break;
		default:
			snprintf(message, sizeof(message), "%s %s.", file,
					 flaw_text(complaint->problem));
			break;
	}
	return message;
}

/* ---------- webhook secrets ---------- */

static void
free_secrets(SlWebhookSecret *secrets, int n)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		sl_sig_key_free(secrets[i].key);
		free(secrets[i].label);
	}
	memset(secrets, 0, n * sizeof(SlWebhookSecret));
}

/* The first 64 bits of a SHA-256: enough to tell secrets apart. */
static void
write_fingerprint(const unsigned char *digest, char out[17])
{
	int			i;

	for (i = 0; i < 8; i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static bool
make_fingerprint(const char *secret, size_t len, char out[17])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int digest_len;

	if (EVP_Digest(secret, len, digest, &digest_len, EVP_sha256(), NULL) != 1)
		return false;
	write_fingerprint(digest, out);
	return true;
}

/*
 * "whsec_..." or "label whsec_...".  The secret is taken whole, prefix
 * included: that is Stripe's scheme, unlike Standard Webhooks' of the same
 * looks.  Memory is malloc'd, since it outlives transactions and errors.
 */
static Problem
parse_webhook_line(const Line *line, SlWebhookSecret *out)
{
	const char *secret = line->start;
	const char *end = line->start + line->len;
	size_t		label_len = 0;
	size_t		len;

	while (secret + label_len < end && !is_blank(secret[label_len]))
		label_len++;
	if (secret + label_len == end)
		label_len = 0;			/* one word: the secret alone */
	else
	{
		secret += label_len;
		while (is_blank(*secret))
			secret++;
	}
	len = end - secret;

	if (!is_printable(line->start, label_len) || label_len > SL_LABEL_MAX ||
		!is_printable(secret, len) || len > SL_SECRET_MAX ||
		len <= strlen(WEBHOOK_PREFIX) ||
		memcmp(secret, WEBHOOK_PREFIX, strlen(WEBHOOK_PREFIX)) != 0)
		return MALFORMED_LINE;

	memset(out, 0, sizeof(*out));
	out->is_short = len < strlen(WEBHOOK_PREFIX) + SHORT_WEBHOOK_SECRET;
	out->key = sl_sig_key_new(secret, len, NULL);
	if (label_len > 0)
		out->label = strndup(line->start, label_len);
	if (out->key == NULL || (label_len > 0 && out->label == NULL) ||
		!make_fingerprint(secret, len, out->fingerprint))
	{
		free_secrets(out, 1);
		return OUT_OF_MEMORY;
	}
	return FINE;
}

/* Returns how many there are, or -1 with nothing left allocated. */
static int
parse_webhook_file(const FileText *buf, SlWebhookSecret *out, Complaint *complaint)
{
	Line		line = {NULL, 0, 0};
	size_t		pos = 0;
	int			n = 0;

	while (complaint->problem == FINE && next_line(buf, &pos, &line))
	{
		if (n == SL_MAX_WEBHOOK_SECRETS)
			complaint->problem = TOO_MANY;
		else
			complaint->problem = parse_webhook_line(&line, &out[n]);
		if (complaint->problem == FINE)
			n++;
	}
	complaint->line = line.number;
	if (complaint->problem == FINE && n == 0)
		complaint->problem = EMPTY;
	if (complaint->problem == FINE)
		return n;
	free_secrets(out, n);
	return -1;
}

/*
 * The active webhook secrets of this server: sets *out to an array that stays
 * valid until the next call, and returns how many there are, at least one.
 * Raises an error if there are none to be had.
 */
int
sl_webhook_secrets(SlWebhookSecret **out)
{
	const char *path = sl_webhook_secret_file;
	SlWebhookSecret fresh[SL_MAX_WEBHOOK_SECRETS];
	Complaint	complaint;
	FileText		buf;
	int			n = -1;

	*out = webhook_secrets;
	if (is_current(&webhook_origin, path))
		return n_webhook_secrets;

	free_secrets(webhook_secrets, n_webhook_secrets);
	n_webhook_secrets = 0;
	webhook_origin.valid = false;

	if (read_file(path, &buf, &complaint))
		n = parse_webhook_file(&buf, fresh, &complaint);
	explicit_bzero(&buf, sizeof(buf));
	if (n < 0)
		ereport(ERROR,
				(errcode(SL_ERRCODE_SECRET),
				 errmsg("no webhook signing secret is available"),
				 errdetail_log("%s", problem_text(&complaint, path,
												  "stripe_lifecycle.webhook_secret_file")),
				 errhint("The server's log says why.  Put the secrets into the file named by \"stripe_lifecycle.webhook_secret_file\" and reload the configuration.")));

	memcpy(webhook_secrets, fresh, n * sizeof(SlWebhookSecret));
	n_webhook_secrets = n;
	set_origin(&webhook_origin, path);
	return n;
}

/*
 * For whoever asks after the server's health: reads the file as it is now,
 * keeps nothing of it, never raises.  Returns how many secrets there are, or
 * 0 and a palloc'd sentence that names neither path nor content.
 */
int
sl_webhook_secrets_problem(char **problem)
{
	SlWebhookSecret fresh[SL_MAX_WEBHOOK_SECRETS];
	Complaint	complaint;
	FileText		buf;
	int			n = -1;

	*problem = NULL;
	if (read_file(sl_webhook_secret_file, &buf, &complaint))
		n = parse_webhook_file(&buf, fresh, &complaint);
	explicit_bzero(&buf, sizeof(buf));
	if (n >= 0)
	{
		free_secrets(fresh, n);
		return n;
	}
	*problem = pstrdup(problem_text(&complaint, NULL,
									"stripe_lifecycle.webhook_secret_file"));
	return 0;
}

/* ---------- the API key ---------- */

/* One line "sk_..." or "rk_...". */
static bool
parse_key_file(const FileText *buf, Complaint *complaint)
{
	Line		line = {NULL, 0, 0};
	size_t		pos = 0;

	if (!next_line(buf, &pos, &line))
		complaint->problem = EMPTY;
	else if (line.len > SL_SECRET_MAX || line.len <= 3 ||
			 !is_printable(line.start, line.len) ||
			 (memcmp(line.start, "sk_", 3) != 0 &&
			  memcmp(line.start, "rk_", 3) != 0))
		complaint->problem = MALFORMED_LINE;
	else
	{
		memcpy(api_key, line.start, line.len);
		api_key[line.len] = '\0';
		if (next_line(buf, &pos, &line))
			complaint->problem = TOO_MANY;
	}
	complaint->line = line.number;
	return complaint->problem == FINE;
}

/* Wipes the key from this process's memory. */
void
sl_api_key_forget(void)
{
	explicit_bzero(api_key, sizeof(api_key));
	api_key_origin.valid = false;
}

/*
 * The secret key for Stripe's API, or NULL: then *why is a sentence for the
 * server's log.  Never raises, because the worker has to live without a key.
 */
const char *
sl_api_key(const char **why)
{
	const char *path = sl_api_key_file;
	Complaint	complaint;
	FileText		buf;
	bool		ok;

	*why = "";
	if (is_current(&api_key_origin, path))
		return api_key;

	sl_api_key_forget();
	ok = read_file(path, &buf, &complaint) && parse_key_file(&buf, &complaint);
	explicit_bzero(&buf, sizeof(buf));
	if (!ok)
	{
		sl_api_key_forget();
		*why = problem_text(&complaint, path, "stripe_lifecycle.api_key_file");
		return NULL;
	}
	set_origin(&api_key_origin, path);
	return api_key;
}

/* Its prefix says which mode the key in memory is of. */
static SlKeyMode
key_mode(void)
{
	if (strncmp(api_key + 3, "test_", 5) == 0)
		return SL_KEY_TEST;
	if (strncmp(api_key + 3, "live_", 5) == 0)
		return SL_KEY_LIVE;
	return SL_KEY_MODE_UNKNOWN;
}

/*
 * The same for the API key.  Returns which mode the key is of, and nothing
 * else of it leaves this function.
 */
SlKeyMode
sl_api_key_problem(char **problem)
{
	Complaint	complaint;
	FileText		buf;
	SlKeyMode	mode = SL_KEY_MODE_UNKNOWN;
	bool		ok;

	/* what is cached is not what is asked for, and is read again when needed */
	sl_api_key_forget();
	*problem = NULL;
	ok = read_file(sl_api_key_file, &buf, &complaint) &&
		parse_key_file(&buf, &complaint);
	explicit_bzero(&buf, sizeof(buf));
	if (!ok)
		*problem = pstrdup(problem_text(&complaint, NULL,
										"stripe_lifecycle.api_key_file"));
	else
		mode = key_mode();
	sl_api_key_forget();
	return mode;
}

/* ---------- the key for checkpoints ---------- */

/* The keys in the file as it is now, which the caller frees, or NULL. */
static SlKeyRing *
read_checkpoint_keys(FileText *buf, Complaint *complaint)
{
	SlKeyRing  *ring = NULL;

	if (read_file(sl_checkpoint_key_file, buf, complaint))
	{
		ring = sl_keyring_new();
		complaint->key = ring == NULL ? SL_KEY_CRYPTO :
			sl_keyring_add(ring, buf->data, buf->len);
		if (complaint->key != SL_KEY_OK)
			complaint->problem = BAD_KEY;
		else if (sl_keyring_signer(ring) == NULL)
			complaint->problem = NO_PRIVATE_KEY;
	}
	explicit_bzero(buf->data, sizeof(buf->data));
	if (complaint->problem == FINE)
		return ring;
	sl_keyring_free(ring);
	return NULL;
}

/*
 * The keys in the file named by stripe_lifecycle.checkpoint_key_file: a private
 * one, and public ones that used to be in its place.  The caller frees the
 * ring.  NULL if they can't be used: then *why is a sentence, which names the
 * file if it is for the server's log.
 */
SlKeyRing *
sl_checkpoint_keys(bool for_log, const char **why)
{
	const char *path = sl_checkpoint_key_file;
	Complaint	complaint;
	FileText	buf;
	SlKeyRing  *ring = read_checkpoint_keys(&buf, &complaint);

	*why = "";
	if (ring != NULL)
		return ring;
	*why = problem_text(&complaint, for_log ? path : NULL,
						"stripe_lifecycle.checkpoint_key_file");
	return NULL;
}

/* ---------- what an operator may see ---------- */

static TimestampTz
file_time(const struct timespec *t)
{
	return time_t_to_timestamptz(t->tv_sec) + t->tv_nsec / 1000;
}

/* May others than its owner and root put another file in this one's place? */
static bool
is_replaceable(const char *path)
{
	char		directory[MAXPGPATH];
	struct stat st;

	strlcpy(directory, path, sizeof(directory));
	get_parent_directory(directory);
	return stat(directory, &st) == 0 && (st.st_mode & (S_IWGRP | S_IWOTH)) &&
		!(st.st_mode & S_ISVTX);
}

static void
add_problem(StringInfo problems, const char *sentence)
{
	if (problems->len > 0)
		appendStringInfoChar(problems, ' ');
	appendStringInfoString(problems, sentence);
}

/* What is to be said of the file, whatever is in it. */
static void
add_path_problems(StringInfo problems, const char *path)
{
	if (is_replaceable(path))
		add_problem(problems, "Others may write to the file's directory, and so replace the file.");
}

/* The same of a file whose content is kept until the next reload. */
static void
add_file_problems(StringInfo problems, const char *path, const FileText *buf)
{
	/* also a rename and a change of mode, as the inode's time shows */
	if (file_time(&buf->stat.st_ctim) > PgReloadTime)
		add_problem(problems, "The file was changed after the latest reload of the configuration, so sessions may still use what was in it before.");
	add_path_problems(problems, path);
}

/* What there is if a file cannot be used: one row without a secret. */
static int
survey_unusable(const Complaint *complaint, const FileText *buf,
				const char *setting, SlSecretInfo *out)
{
	out->problems = pstrdup(problem_text(complaint, NULL, setting));
	if (buf->stat.st_mtim.tv_sec != 0)
		out->modified = file_time(&buf->stat.st_mtim);
	return 1;
}

static int
survey_api_key(SlSecretInfo *out)
{
	StringInfoData problems;
	Complaint	complaint;
	FileText	buf;
	bool		ok;

	memset(out, 0, sizeof(*out));
	out->kind = SL_SECRET_API_KEY;
	ok = read_file(sl_api_key_file, &buf, &complaint) &&
		parse_key_file(&buf, &complaint);
	explicit_bzero(buf.data, sizeof(buf.data));
	if (ok && !make_fingerprint(api_key, strlen(api_key), out->fingerprint))
	{
		complaint.problem = OUT_OF_MEMORY;
		ok = false;
	}
	out->mode = ok ? key_mode() : SL_KEY_MODE_UNKNOWN;
	/* what the worker has in use, it reads again */
	sl_api_key_forget();
	if (!ok)
		return survey_unusable(&complaint, &buf, "stripe_lifecycle.api_key_file", out);

	initStringInfo(&problems);
	if (out->mode == SL_KEY_MODE_UNKNOWN)
		add_problem(&problems, "Its prefix does not tell whether the key is for live or test mode.");
	add_file_problems(&problems, sl_api_key_file, &buf);
	out->modified = file_time(&buf.stat.st_mtim);
	out->problems = problems.len > 0 ? problems.data : NULL;
	return 1;
}

static bool
is_duplicate(const SlWebhookSecret *secrets, int n, int i)
{
	int			j;

	for (j = 0; j < n; j++)
		if (j != i && strcmp(secrets[j].fingerprint, secrets[i].fingerprint) == 0)
			return true;
	return false;
}

static int
survey_webhook_secrets(SlSecretInfo *out)
{
	SlWebhookSecret fresh[SL_MAX_WEBHOOK_SECRETS];
	Complaint	complaint;
	FileText	buf;
	int			n = -1;
	int			i;

	if (read_file(sl_webhook_secret_file, &buf, &complaint))
		n = parse_webhook_file(&buf, fresh, &complaint);
	explicit_bzero(buf.data, sizeof(buf.data));
	memset(out, 0, sizeof(*out) * Max(n, 1));
	for (i = 0; i < Max(n, 1); i++)
		out[i].kind = SL_SECRET_WEBHOOK;
	if (n < 0)
		return survey_unusable(&complaint, &buf,
							   "stripe_lifecycle.webhook_secret_file", out);

	for (i = 0; i < n; i++)
	{
		StringInfoData problems;

		initStringInfo(&problems);
		if (fresh[i].label != NULL)
			out[i].label = pstrdup(fresh[i].label);
		strlcpy(out[i].fingerprint, fresh[i].fingerprint,
				sizeof(out[i].fingerprint));
		if (is_duplicate(fresh, n, i))
			add_problem(&problems, "The same secret is in another line as well.");
		if (fresh[i].is_short)
			add_problem(&problems, "It is shorter than the secrets that Stripe issues; was it copied completely?");
		add_file_problems(&problems, sl_webhook_secret_file, &buf);
		out[i].modified = file_time(&buf.stat.st_mtim);
		out[i].problems = problems.len > 0 ? problems.data : NULL;
	}
	free_secrets(fresh, n);
	return n;
}

/*
 * The key that signs checkpoints, if any is asked for.  The fingerprint is that
 * of its public half, by which a checkpoint names it.
 */
static int
survey_checkpoint_key(SlSecretInfo *out)
{
	StringInfoData problems;
	Complaint	complaint;
	FileText	buf;
	SlKeyRing  *ring;

	if (sl_checkpoint_key_file[0] == '\0')
		return 0;
	memset(out, 0, sizeof(*out));
	out->kind = SL_SECRET_CHECKPOINT;
	ring = read_checkpoint_keys(&buf, &complaint);
	if (ring == NULL)
		return survey_unusable(&complaint, &buf,
							   "stripe_lifecycle.checkpoint_key_file", out);

	write_fingerprint(sl_keyring_signer(ring), out->fingerprint);
	sl_keyring_free(ring);
	initStringInfo(&problems);
	add_path_problems(&problems, sl_checkpoint_key_file);
	out->modified = file_time(&buf.stat.st_mtim);
	out->problems = problems.len > 0 ? problems.data : NULL;
	return 1;
}

/*
 * What may be shown of all secrets, from the files as they are now: the API
 * key, then the webhook secrets in their order, or for either a row that says
 * why there is none; then the key for checkpoints, unless they are off.  'out'
 * has room for SL_MAX_SECRETS; returns how many there are.  Names neither a
 * path nor anything of a secret but its fingerprint.
 */
int
sl_secrets_survey(SlSecretInfo *out)
{
	int			n = survey_api_key(out);

	n += survey_webhook_secrets(out + n);
	return n + survey_checkpoint_key(out + n);
}

/*
 * Which mode the API key is of, for sessions that have no use for the key
 * itself: it is read once per reload and wiped, and only its mode is kept.
 */
SlKeyMode
sl_api_key_mode(void)
{
	static SlKeyMode mode;
	static Origin origin;

	if (!is_current(&origin, sl_api_key_file))
	{
		char	   *problem;

		mode = sl_api_key_problem(&problem);
		if (problem != NULL)
			pfree(problem);
		set_origin(&origin, sl_api_key_file);
	}
	return mode;
}
