#!/usr/bin/env python3
"""A stand-in for PostgREST, for tests: HTTP on one side, libpq on the other.

    postgrest_sim.py CONFIG [--port-file FILE]

No package registry carries PostgREST, so this does to the database what PostgREST 13 does, in the same
order and with the same queries, and makes the same answers of what comes back:

* a connection of a small pool, as the authenticator;
* BEGIN, read-only for GET and for functions that are not VOLATILE, with the role's isolation level;
* one SELECT of set_config(): search_path, the role's own settings, the role, the token's claims, method,
  path, headers, cookies, settings hoisted from the function;
* the function named by db-pre-request;
* the call, as one query that also reads response.headers and response.status back;
* COMMIT, or ROLLBACK and an answer made of the error.

CONFIG is a file as PostgREST reads it. Known: db-uri, db-schemas, db-anon-role, db-pre-request,
db-extra-search-path, db-pool, db-pool-acquisition-timeout, db-hoisted-tx-settings, db-tx-end, jwt-secret,
server-host, server-port (0: any). What a test needs beyond that is in the answers' headers: Sim-Attempts
says how often the transaction was run, because PostgREST up to 14 repeats one that fails with class 40
without end; this gives up after 20. POST /_sim/reconnect closes the pool's connections, so that the next
request is served by one that knows the server's latest configuration.

Not here: filters, embedding, OpenAPI, anything but GET and POST.
"""

import argparse
import base64
import ctypes
import ctypes.util
import hashlib
import hmac
import json
import queue
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

MAX_ATTEMPTS = 20

# ---------------------------------------------------------------------------
# libpq
# ---------------------------------------------------------------------------

pq = ctypes.CDLL(ctypes.util.find_library("pq") or "libpq.so.5")
for name, result, arguments in (
        ("PQconnectdb", ctypes.c_void_p, [ctypes.c_char_p]),
        ("PQstatus", ctypes.c_int, [ctypes.c_void_p]),
        ("PQerrorMessage", ctypes.c_char_p, [ctypes.c_void_p]),
        ("PQfinish", None, [ctypes.c_void_p]),
        ("PQexecParams", ctypes.c_void_p,
         [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_uint),
          ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int),
          ctypes.c_int]),
        ("PQresultStatus", ctypes.c_int, [ctypes.c_void_p]),
        ("PQresultErrorField", ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int]),
        ("PQntuples", ctypes.c_int, [ctypes.c_void_p]),
        ("PQnfields", ctypes.c_int, [ctypes.c_void_p]),
        ("PQgetvalue", ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
        ("PQgetisnull", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
        ("PQclear", None, [ctypes.c_void_p])):
    function = getattr(pq, name)
    function.restype, function.argtypes = result, arguments

JSON, TEXT, UNKNOWN = 114, 25, 705


class DatabaseError(Exception):
    """An error of the server's; without a code the connection is gone."""

    def __init__(self, code, message, detail=None, hint=None):
        super().__init__(message)
        self.code, self.message, self.detail, self.hint = code, message, detail, hint


class Connection:
    def __init__(self, uri):
        self.conn = pq.PQconnectdb(uri.encode())
        if pq.PQstatus(self.conn) != 0:
            message = pq.PQerrorMessage(self.conn).decode()
            pq.PQfinish(self.conn)
            raise DatabaseError(None, message)

    def close(self):
        pq.PQfinish(self.conn)

    def run(self, sql, *params):
        """Runs one statement with parameters (value, type); returns its rows, values as bytes or None."""
        n = len(params)
        values = [None if v is None else v if isinstance(v, bytes) else v.encode() for v, _ in params]
        result = pq.PQexecParams(
            self.conn, sql.encode(), n, (ctypes.c_uint * n)(*(t for _, t in params)),
            (ctypes.c_char_p * n)(*values), (ctypes.c_int * n)(*(len(v or b"") for v in values)), None, 0)
        try:
            if pq.PQresultStatus(result) not in (1, 2):
                field = [pq.PQresultErrorField(result, ord(c)) for c in "CMDH"]
                code, message, detail, hint = (f if f is None else f.decode() for f in field)
                raise DatabaseError(code, message or pq.PQerrorMessage(self.conn).decode(), detail, hint)
            return [[None if pq.PQgetisnull(result, r, c) else pq.PQgetvalue(result, r, c)
                     for c in range(pq.PQnfields(result))] for r in range(pq.PQntuples(result))]
        finally:
            pq.PQclear(result)


def ident(*names):
    return ".".join('"' + n.replace('"', '""') + '"' for n in names)


# ---------------------------------------------------------------------------
# What the database has: functions, settings of roles
# ---------------------------------------------------------------------------

class Routine:
    """A function as PostgREST's schema cache has it."""

    def __init__(self, schema, row):
        self.schema = schema
        (self.name, arguments, self.volatility, self.kind, self.returns_set, settings) = (
            v and v.decode() for v in row)
        self.parameters = json.loads(arguments)         # of {name, type, required}
        self.settings = json.loads(settings)
        self.returns_set = self.returns_set == "t"


ROUTINES = """
SELECT p.proname,
       coalesce((SELECT json_agg(json_build_object('name', coalesce(p.proargnames[n], ''), 'type', format_type(t, NULL),
                                                   'required', n <= p.pronargs - p.pronargdefaults) ORDER BY n)
                   FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, n)), '[]'),
       p.provolatile,
       CASE WHEN p.prorettype = 'void'::regtype THEN 'void'
            WHEN r.typtype = 'c' OR p.prorettype = 'record'::regtype THEN 'composite' ELSE 'scalar' END,
       p.proretset,
       coalesce((SELECT json_object_agg(split_part(c, '=', 1), regexp_replace(c, '^[^=]*=', '')) FROM unnest(p.proconfig) c), '{}')
  FROM pg_proc p JOIN pg_type r ON r.oid = p.prorettype
 WHERE p.prokind = 'f' AND p.pronamespace = $1::regnamespace AND p.proname = $2 AND p.prorettype <> 'trigger'::regtype"""

ROLE_SETTINGS = """
SELECT split_part(c, '=', 1), regexp_replace(c, '^[^=]*=', '')
  FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c
 WHERE r.rolname = $1 AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))"""


# ---------------------------------------------------------------------------
# HTTP
# ---------------------------------------------------------------------------

class Refused(Exception):
    """An answer that PostgREST makes by itself."""

    def __init__(self, status, code, message, details=None, hint=None, headers=()):
        super().__init__(message)
        self.status, self.headers = status, list(headers)
        self.body = {"code": code, "details": details, "hint": hint, "message": message}


def aeson(body):
    """The value of a JSON text, by the strict rules of PostgREST's parser; ValueError if it is none."""

    def constant(name):
        raise ValueError(name)

    if body.startswith(b"\xef\xbb\xbf"):
        raise ValueError("byte order mark")
    value = json.loads(body.decode("utf-8"), parse_constant=constant, parse_int=lambda s: 0,
                       parse_float=lambda s: 0.0)
    json.dumps(value, ensure_ascii=False).encode("utf-8")     # refuses lone surrogates
    return value


def payload(body, columns):
    """What the function gets of a JSON body, and the names of its members."""
    if columns is not None:
        return body, set(columns)
    try:
        value = {} if body == b"" else aeson(body)
    except (ValueError, RecursionError):
        raise Refused(400, "PGRST102", "Empty or invalid json") from None
    if isinstance(value, dict):
        return body, set(value)
    if isinstance(value, list) and value:
        if all(isinstance(x, dict) and set(x) == set(value[0] if isinstance(value[0], dict) else ()) for x in value):
            return body, set(value[0])
        raise Refused(400, "PGRST102", "All object keys must match")
    return b"[]", set()


def content_type(header):
    name = (header or "application/json").split(";")[0].strip().lower()
    if name not in ("application/json", "text/plain", "application/octet-stream", "text/xml", "text/csv",
                    "application/x-www-form-urlencoded"):
        raise Refused(400, "PGRST102", "Content-Type not acceptable: " + name)
    return name


def pick(routines, names, kind, is_post):
    """The function that a request calls, and whether it takes the raw body."""
    raw = {"application/json": ("json", "jsonb"), "text/plain": ("text",), "text/xml": ("xml",),
           "application/octet-stream": ("bytea",)}.get(kind, ())
    named, unnamed = [], []
    for r in routines:
        required = {p["name"] for p in r.parameters if p["required"]}
        all_names = {p["name"] for p in r.parameters}
        if (not r.parameters and not names) or (r.parameters and required <= names <= all_names and "" not in all_names):
            named.append(r)
        elif is_post and len(r.parameters) == 1 and r.parameters[0]["name"] == "" and r.parameters[0]["type"] in raw:
            unnamed.append(r)
    for found in (named, unnamed):
        if len(found) > 1:
            raise Refused(300, "PGRST203", "Could not choose the best candidate function")
        if found:
            return found[0], found is unnamed
    raise Refused(404, "PGRST202", "Could not find the function in the schema cache")


STATUS_OF_CODE = (
    ("23503", 409), ("23505", 409), ("25006", 405), ("42883", 404), ("42P01", 404), ("42P17", 500), ("53400", 500),
    ("57P01", 503), ("P0001", 400), ("08", 503), ("09", 500), ("0L", 403), ("0P", 403), ("25", 500), ("28", 403),
    ("2D", 500), ("38", 500), ("39", 500), ("3B", 500), ("40", 500), ("53", 503), ("54", 500), ("55", 500), ("57", 500),
    ("58", 500), ("F0", 500), ("HV", 500), ("P0", 500), ("XX", 500))


def answer_of_error(e, authenticated):
    """Status, reason phrase or None, headers and body that an error of the database's becomes."""
    body = {"code": e.code, "details": e.detail, "hint": e.hint, "message": e.message}
    if e.code is None:
        body["code"] = "PGRST001"
        return 503, None, [], body
    if e.code == "PGRST":
        try:
            m, d = json.loads(e.message), json.loads(e.detail or "")
            body = {"code": m["code"], "details": m.get("details"), "hint": m.get("hint"), "message": m["message"]}
            headers = [(k, v) for k, v in d["headers"].items()]
            if not all(isinstance(v, str) for _, v in headers) or not all(
                    v is None or isinstance(v, str) for v in body.values()):
                raise ValueError
            return int(d["status"]), d.get("status_text"), headers, body
        except (ValueError, KeyError, TypeError, AttributeError):
            body["code"] = "PGRST121"
            return 500, None, [], body
    if e.code.startswith("PT"):
        return int(e.code[2:]) if e.code[2:].isdigit() else 500, e.message, [], body
    if e.code == "42501":
        return (403, None, [], body) if authenticated else (401, None, [("WWW-Authenticate", "Bearer")], body)
    status = next((s for prefix, s in STATUS_OF_CODE if e.code.startswith(prefix)), 400)
    return status, None, [], body


class PostgREST:
    def __init__(self, config):
        self.config = config
        self.uri = config["db-uri"]
        self.schemas = [s.strip() for s in config.get("db-schemas", "public").split(",")]
        self.extra_path = [s.strip() for s in config.get("db-extra-search-path", "public").split(",") if s.strip()]
        self.hoisted = [s.strip() for s in config.get(
            "db-hoisted-tx-settings",
            "statement_timeout, plan_filter.statement_cost_limit, default_transaction_isolation").split(",")]
        self.pool = queue.LifoQueue()
        for _ in range(int(config.get("db-pool", "10"))):
            self.pool.put(None)

    # -- who asks

    def authenticate(self, header):
        """Role, claims, whether there was a token."""
        anon = self.config.get("db-anon-role")
        if header and header[:7].lower() == "bearer ":
            secret = self.config.get("jwt-secret")
            if not secret:
                raise Refused(500, "PGRST300", "Server lacks JWT secret")
            try:
                head, middle, tail = header[7:].split(".")
                signature = hmac.new(secret.encode(), f"{head}.{middle}".encode(), hashlib.sha256).digest()
                sent, claims = (base64.urlsafe_b64decode(x + "==") for x in (tail, middle))
                claims = json.loads(claims)
                if not hmac.compare_digest(signature, sent) or claims.get("exp", float("inf")) < time.time():
                    raise ValueError
            except (ValueError, AttributeError):
                raise Refused(401, "PGRST301", "JWT invalid",
                              headers=[("WWW-Authenticate", 'Bearer error="invalid_token"')]) from None
            return claims.get("role", anon), claims, True
        if anon is None:
            raise Refused(401, "PGRST302", "Anonymous access is disabled", headers=[("WWW-Authenticate", "Bearer")])
        return anon, {"role": anon}, False

    # -- transactions

    def with_connection(self, work):
        try:
            conn = self.pool.get(timeout=float(self.config.get("db-pool-acquisition-timeout", "10")))
        except queue.Empty:
            raise Refused(504, "PGRST003", "Timed out acquiring connection from connection pool.") from None
        try:
            if conn is None:
                try:
                    conn = Connection(self.uri)
                except DatabaseError as e:
                    raise Refused(503, "PGRST000", "Database connection error.") from e
            return work(conn)
        except DatabaseError as e:
            if e.code is None or e.code.startswith("57P"):
                conn.close()
                conn = None
            raise
        finally:
            self.pool.put(conn)

    def reconnect(self):
        n = self.pool.qsize()
        for conn in [self.pool.get() for _ in range(n)]:
            if conn is not None:
                conn.close()
            self.pool.put(None)
        return n

    def transaction(self, conn, request, role, settings, routine, query, params, read_only):
        level = {**settings, **(routine.settings if routine else {})}.get("default_transaction_isolation", "read committed")
        hoisted = {k: v for k, v in (routine.settings if routine else {}).items() if k in self.hoisted}
        variables = [
            ("search_path", ", ".join(ident(s) for s in [self.schemas[0]] + self.extra_path)),
            *((k, v) for k, v in settings.items() if k != "default_transaction_isolation"),
            ("role", role),
            ("request.jwt.claims", json.dumps(request["claims"], separators=(",", ":"))),
            ("request.method", request["method"]), ("request.path", request["path"]),
            ("request.headers", json.dumps(request["headers"], ensure_ascii=False)),
            ("request.cookies", json.dumps(request["cookies"], ensure_ascii=False)),
            *((k, v) for k, v in hoisted.items() if k != "default_transaction_isolation")]
        conn.run(f"BEGIN ISOLATION LEVEL {level} {'READ ONLY' if read_only else 'READ WRITE'}")
        try:
            n = range(1, 2 * len(variables), 2)
            conn.run("SELECT " + ", ".join(f"set_config(${i}, ${i + 1}, true)" for i in n),
                     *((x, TEXT) for pair in variables for x in pair))
            if "db-pre-request" in self.config:
                conn.run(f"SELECT {ident(*self.config['db-pre-request'].split('.'))}()")
            rows = conn.run(query, *params)
            conn.run("ROLLBACK" if self.config.get("db-tx-end") == "rollback" else "COMMIT")
            return rows[0]
        except DatabaseError as e:
            if e.code is not None:
                conn.run("ROLLBACK")
            raise

    def run(self, request, role, routine, query, params, read_only):
        """The row of an answer, and how often it took."""

        def work(conn):
            settings = {k.decode(): v.decode() for k, v in conn.run(ROLE_SETTINGS, (role, TEXT))}
            for attempt in range(1, MAX_ATTEMPTS + 1):
                request["attempts"] = attempt
                try:
                    return self.transaction(conn, request, role, settings, routine, query, params, read_only)
                except DatabaseError as e:
                    if e.code not in ("40001", "40P01") or attempt == MAX_ATTEMPTS:
                        raise

        return self.with_connection(work)

    # -- plans

    def routines(self, name):
        return self.with_connection(lambda conn: [
            Routine(self.schemas[0], row) for row in conn.run(ROUTINES, (ident(self.schemas[0]), TEXT), (name, TEXT))])

    def call(self, request, role, name):
        is_post = request["method"] == "POST"
        kind = content_type(request["headers"].get("content-type")) if is_post else None
        query = dict(request["query"])
        columns = query.pop("columns", None)
        body, names = b"", set(query)
        if is_post and kind == "application/json":
            body, names = payload(request["body"], None if columns is None else columns.split(","))
        elif is_post and kind == "application/x-www-form-urlencoded":
            query = dict(parse_qsl(request["body"].decode()))
            names = set(query)
        elif is_post:
            body, names = request["body"], set()
        routine, raw = pick(self.routines(name), names, kind, is_post)
        if is_post and kind != "application/x-www-form-urlencoded":
            for column, value in query.items():
                if not re.match(r"(not\.)?(eq|gt|gte|lt|lte|neq|like|ilike|in|is)\.", value):
                    raise Refused(400, "PGRST100", f'"failed to parse filter ({value})"')
                raise Refused(400, "42703", f"column {name}.{column} does not exist")
        call, params = self.call_sql(routine, raw, names, body, query if not body else None)
        aggregate = {"void": "''", "scalar": "coalesce(json_agg(_postgrest_t.pgrst_scalar)->0, 'null')",
                     "composite": "coalesce(json_agg(_postgrest_t)->0, 'null')"}[routine.kind]
        if routine.returns_set:
            aggregate = aggregate.replace("->0, 'null'", ", '[]'")
        sql = f"""WITH pgrst_source AS ({call})
SELECT null::bigint AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total, {aggregate} AS body,
       nullif(current_setting('response.headers', true), '') AS response_headers,
       nullif(current_setting('response.status', true), '') AS response_status, '' AS response_inserted
  FROM (SELECT {ident(name)}.* FROM "pgrst_source" AS {ident(name)}) _postgrest_t"""
        row = self.run(request, role, routine, sql, params, not is_post or routine.volatility != "v")
        return row, 204 if routine.kind == "void" else 200

    @staticmethod
    def call_sql(routine, raw, names, body, direct):
        target = ident(routine.schema, routine.name)
        used = [p for p in routine.parameters if p["name"] in names]
        source, params = "", []
        if raw:
            kind = routine.parameters[0]["type"]
            arguments, params = f"$1::{kind}", [(body, JSON if kind == "json" else UNKNOWN)]
            if kind == "bytea":
                arguments, params = "decode($1, 'hex')", [(body.hex(), TEXT)]
        elif direct is not None:
            arguments = ", ".join(f"{ident(p['name'])} := ${i}::{p['type']}" for i, p in enumerate(used, 1))
            params = [(direct[p["name"]], UNKNOWN) for p in used]
        else:
            arguments = ", ".join(f"{ident(p['name'])} := pgrst_body.{ident(p['name'])}" for p in used)
            if used:
                params = [(body, JSON)]
                record = "json_to_record" if body.lstrip(b" \t\r\n")[:1] == b"{" else "json_to_recordset"
                source = (f"(SELECT $1::json AS json_data) pgrst_payload, LATERAL (SELECT "
                          f"{', '.join(ident(p['name']) for p in used)} FROM {record}(pgrst_payload.json_data) AS "
                          f"_({', '.join(ident(p['name']) + ' ' + p['type'] for p in used)}) LIMIT 1) pgrst_body, LATERAL ")
        if routine.kind == "composite":
            return f"SELECT pgrst_call.* FROM {source}{target}({arguments}) pgrst_call", params
        return f"SELECT pgrst_call.pgrst_scalar FROM {source}(SELECT {target}({arguments}) pgrst_scalar) pgrst_call", params

    def table(self, request, role, name):
        target = ident(self.schemas[0], name)
        read = f"SELECT * FROM {target}"
        params = []
        if request["method"] == "POST":
            body, _ = payload(request["body"], None)
            read = f"INSERT INTO {target} SELECT * FROM json_populate_record(NULL::{target}, $1::json) RETURNING *"
            params = [(body, JSON)]
        sql = f"""WITH pgrst_source AS ({read})
SELECT null::bigint, pg_catalog.count(_postgrest_t), coalesce(json_agg(_postgrest_t), '[]'),
       nullif(current_setting('response.headers', true), ''), nullif(current_setting('response.status', true), ''), ''
  FROM (SELECT * FROM pgrst_source) _postgrest_t"""
        return self.run(request, role, None, sql, params, request["method"] == "GET"), 200

    # -- answers

    def answer(self, request):
        """Status, reason phrase or None, headers, body."""
        authenticated = False
        try:
            role, request["claims"], authenticated = self.authenticate(request["headers"].get("authorization"))
            if request["method"] not in ("GET", "POST"):
                raise Refused(405, "PGRST101", "Only the GET and POST methods are implemented")
            path = request["path"].strip("/").split("/")
            if len(path) == 2 and path[0] == "rpc":
                row, status = self.call(request, role, path[1])
            elif len(path) == 1 and path[0]:
                row, status = self.table(request, role, path[0])
            else:
                raise Refused(404, "PGRST125", "Invalid path specified in request URL")
            headers, status = self.controlled(row, status)
            return status, None, headers, b"" if status == 204 else row[2]
        except Refused as e:
            status, reason, headers, body = e.status, None, e.headers, e.body
        except DatabaseError as e:
            status, reason, headers, body = answer_of_error(e, authenticated)
        headers = [("Content-Type", "application/json; charset=utf-8"), ("Proxy-Status", f"PostgREST; error={body['code']}"),
                   *headers]
        return status, reason, headers, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

    @staticmethod
    def controlled(row, status):
        """What the function set: headers and status."""
        headers = [("Content-Type", "application/json; charset=utf-8")]
        if row[3] is not None:
            try:
                given = json.loads(row[3])
                if not isinstance(given, list):
                    raise ValueError
                for member in given:
                    ((k, v),) = member.items()
                    if not isinstance(v, str):
                        raise ValueError
                    if k.lower() == "content-type":
                        headers = [h for h in headers if h[0].lower() != "content-type"]
                    headers.append((k, v))
            except (ValueError, AttributeError):
                raise Refused(500, "PGRST111", "response.headers guc must be a JSON array composed of objects "
                              "with a single key and a string value") from None
        if row[4] is not None:
            if not re.fullmatch(rb"\d+", row[4]):
                raise Refused(500, "PGRST112", "response.status guc must be a valid status code")
            status = int(row[4])
        return headers, status


def make_handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            if self.path == "/_sim/reconnect":
                self.write(200, None, [], str(server.reconnect()).encode())
                return
            headers, cookies = {}, {}
            try:
                for name, value in self.headers.items():
                    value = value.encode("latin-1").decode("utf-8")
                    if name.lower() == "cookie":
                        cookies.update(tuple(c.strip().split("=", 1)) for c in value.split(";") if "=" in c)
                    else:
                        headers[name.lower()] = value
            except UnicodeDecodeError:
                self.write(500, None, [("Content-Type", "text/plain; charset=utf-8")], b"Something went wrong")
                return
            request = {"method": self.command, "path": unquote(url.path), "query": parse_qsl(url.query, True),
                       "headers": headers, "cookies": cookies, "body": body, "attempts": 0}
            status, reason, answered, content = server.answer(request)
            self.write(status, reason, [*answered, ("Sim-Attempts", str(request["attempts"]))], content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        # As it is, and nothing escaped: so does PostgREST.
        def write(self, status, reason, headers, content):
            if reason is None:
                reason = self.responses.get(status, ("",))[0]
            lines = [f"HTTP/1.1 {status} {reason}", *(f"{k}: {v}" for k, v in headers),
                     f"Content-Length: {len(content)}", "", ""]
            self.wfile.write("\r\n".join(lines).encode() + content)
            self.wfile.flush()

        def log_message(self, *args):
            pass

    return Handler


def read_config(path):
    config = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            match = re.match(r'\s*([a-z][a-z0-9.-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s#]+))', line)
            if match:
                quoted = match.group(2)
                config[match.group(1)] = match.group(3) if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            elif line.strip() and not line.lstrip().startswith("#"):
                sys.exit(f"{path}: what is this? {line.strip()}")
    return config


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--port-file")
    options = parser.parse_args()
    config = read_config(options.config)
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer.request_queue_size = 128
    http = ThreadingHTTPServer((config.get("server-host", "127.0.0.1"), int(config.get("server-port", "0"))),
                               make_handler(PostgREST(config)))
    if options.port_file:
        with open(options.port_file, "w", encoding="ascii") as file:
            file.write(f"{http.server_address[1]}\n")
    threading.stack_size(64 * 1024 * 1024)      # json.loads of deeply nested bodies
    http.serve_forever()


if __name__ == "__main__":
    main()
