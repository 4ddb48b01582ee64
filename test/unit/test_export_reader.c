/*-------------------------------------------------------------------------
 *
 * test_export_reader.c
 *	  Reading exports, as they are and as they might be sent by somebody who
 *	  means no good.  Every text is read in pieces of every size.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "export_reader.h"

#define HEADER \
	"record,text,position,payment_id,seq,from_state,to_state,at,source,event_id," \
	"event_type,event_created,role,note,amount,currency,livemode,previous_hash,hash"
#define NO_FIELDS ",,,,,,,,,,,,,,,,,"

/* A text, handed out in pieces of 'piece' bytes. */
typedef struct Source
{
	const char *text;
	size_t		len;
	size_t		piece;
	bool		fails;			/* in the end */
} Source;

static long
read_piece(void *arg, char *buf, size_t n)
{
	Source	   *s = arg;
	size_t		take = s->len < s->piece ? s->len : s->piece;

	if (take > n)
		take = n;
	if (take == 0)
		return s->fails ? -1 : 0;
	memcpy(buf, s->text, take);
	s->text += take;
	s->len -= take;
	return (long) take;
}

/*
 * All that is read, as one text: "name=value;" for each field that is not NULL,
 * a line end after each record, and the error with its line, if there is one.
 */
static const char *
read_all(const char *text, size_t len, size_t piece)
{
	static const char *const short_names[SL_EXPORT_NFIELDS] = {
		"id", "seq", "from", "to", "at", "source", "event", "type", "created", "role",
		"note", "amount", "currency", "livemode", "record", "text", "position",
		"previous", "hash"
	};
	static char out[20000];
	Source		source = {text, len, piece, false};
	SlExportReader *reader = sl_export_reader_new(read_piece, &source);
	SlExportRecord record;
	SlExportResult result;
	size_t		n = 0;
	int			i;

	out[0] = '\0';
	while ((result = sl_export_read(reader, &record)) == SL_EXPORT_OK)
	{
		for (i = 0; i < SL_EXPORT_NFIELDS; i++)
			if (record.fields[i].bytes != NULL)
				n += (size_t) snprintf(out + n, sizeof(out) - n, "%s=%.*s;", short_names[i],
									   (int) record.fields[i].len, record.fields[i].bytes);
		n += (size_t) snprintf(out + n, sizeof(out) - n, "\n");
	}
	if (result == SL_EXPORT_FAILED)
		snprintf(out + n, sizeof(out) - n, "line %lu: %s",
				 sl_export_reader_line(reader), sl_export_reader_error(reader));
	sl_export_reader_free(reader);
	return out;
}

/* The same in pieces of every size. */
static void
check(const char *text, const char *expected)
{
	size_t		len = strlen(text);
	size_t		piece;

	for (piece = 1; piece <= len + 1; piece += piece < 40 ? 1 : 37)
	{
		unit_case("%.60s, pieces of %zu", text, piece);
		CHECK_STR(read_all(text, len, piece), expected);
	}
	unit_case(NULL);
}

static void
test_json(void)
{
	check("{\"record\":\"end\",\"text\":\"x\"}\n", "record=end;text=x;\n");
	check("{\"record\":\"end\",\"text\":\"x\"}", "record=end;text=x;\n");
	check("{\"record\":\"end\"}\n{\"record\":\"x\"}\r\n", "record=end;\nrecord=x;\n");
	check("{ \"record\" : \"a\" ,\t\"seq\" : 12 , \"livemode\" : true , \"note\" : null , \"amount\" : -5 } \n",
		  "seq=12;amount=-5;livemode=true;record=a;\n");
	check("{\"livemode\":false,\"note\":\"\"}", "note=;livemode=false;\n");
	/* a string of that name is no null */
	check("{\"note\":\"null\"}", "note=null;\n");

	/* every escape */
	check("{\"note\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}", "note=\"\\/\b\f\n\r\t;\n");
	check("{\"note\":\"\\u0041\\u00e9\\u20AC\\ud83d\\ude00|\"}",
		  "note=A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80|;\n");
	check("{\"note\":\"a,b}\xc3\xa9\"}", "note=a,b}\xc3\xa9;\n");
	check("{\"\\u0072ecord\":\"x\"}", "record=x;\n");
}

static void
test_bad_json(void)
{
	static const char *const bad[][2] = {
		{"{}", "a name is expected"},
		{"{", "a name is expected"},
		{"{\"record\"}", "a colon is expected"},
		{"{\"record\":}", "a value is neither a string, an integer, true, false nor null"},
		{"{\"record\":\"a\"", "a comma or a closing brace is expected"},
		{"{\"record\":\"a\",}", "a name is expected"},
		{"{\"record\":\"a\"} x", "something follows the object"},
		{"{\"record\":\"a\"}{\"record\":\"b\"}", "something follows the object"},
		{"{\"record\":\"a\",\"record\":\"b\"}", "a field is there twice"},
		{"{\"record\":\"a\",\"r\\u0065cord\":\"b\"}", "a field is there twice"},
		{"{\"other\":\"a\"}", "an export has no field of that name"},
		{"{\"\":\"a\"}", "an export has no field of that name"},
		{"{\"seq\":1.5}", "a comma or a closing brace is expected"},
		{"{\"seq\":1e5}", "a value is neither a string, an integer, true, false nor null"},
		{"{\"seq\":-}", "a value is neither a string, an integer, true, false nor null"},
		{"{\"seq\":1-2}", "a value is neither a string, an integer, true, false nor null"},
		{"{\"seq\":+1}", "a value is neither a string, an integer, true, false nor null"},
		{"{\"seq\":nul}", "a value is neither a string, an integer, true, false nor null"},
		{"{\"seq\":True}", "a value is neither a string, an integer, true, false nor null"},
		{"{\"seq\":[1]}", "a value is neither a string, an integer, true, false nor null"},
		{"{\"seq\":{}}", "a value is neither a string, an integer, true, false nor null"},
		{"{\"note\":\"a", "a string does not end"},
		{"{\"note\":\"a\\", "a string holds a malformed escape"},
		{"{\"note\":\"\\x\"}", "a string holds a malformed escape"},
		{"{\"note\":\"\\u12\"}", "a string holds a malformed escape"},
		{"{\"note\":\"\\u00zz\"}", "a string holds a malformed escape"},
		{"{\"note\":\"\\u0000\"}", "a string holds a malformed escape"},
		{"{\"note\":\"\\ud83d\"}", "a string holds a malformed escape"},
		{"{\"note\":\"\\ud83d\\u0041\"}", "a string holds a malformed escape"},
		{"{\"note\":\"\\ude00\"}", "a string holds a malformed escape"},
		{"{\"note\":\"\\ud83dx\"}", "a string holds a malformed escape"},
		{"{\"note\":\"a\tb\"}", "a string holds a control character"},
	};
	char		expected[200];
	char		text[200];
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(bad); i++)
	{
		snprintf(expected, sizeof(expected), "line 1: %s", bad[i][1]);
		check(bad[i][0], expected);
		/* and in a later line */
		snprintf(text, sizeof(text), "{\"seq\":1}\n{\"seq\":2}\n%s\n{\"seq\":3}\n", bad[i][0]);
		snprintf(expected, sizeof(expected), "seq=1;\nseq=2;\nline 3: %s", bad[i][1]);
		check(text, expected);
	}
	check("{\"seq\":1}\n\n", "seq=1;\nline 2: it is no JSON object");
	check("{\"seq\":1}\n\n{\"seq\":2}", "seq=1;\nline 2: it is no JSON object");
	check("{\"seq\":1}\nrecord\n", "seq=1;\nline 2: it is no JSON object");
}

static void
test_csv(void)
{
	check(HEADER "\n", "");
	check(HEADER, "");
	check(HEADER "\n\"end\",\"x\"" NO_FIELDS "\n", "record=end;text=x;\n");
	check(HEADER "\r\nend,x" NO_FIELDS "\r\n", "record=end;text=x;\n");
	check(HEADER "\nend,x" NO_FIELDS, "record=end;text=x;\n");
	check(HEADER "\n\"transition\",,7,\"id\",1,,\"created\",\"now\",\"s\",,,,\"r\",\"\",5,\"usd\",false,,\"ff\"\n",
		  "id=id;seq=1;to=created;at=now;source=s;role=r;note=;amount=5;currency=usd;livemode=false;"
		  "record=transition;position=7;hash=ff;\n");
	/* quotes, commas and line ends within quotes; the next record's line is right */
	check(HEADER "\n\"a\"\"b\",\"1,\n2\r\n\"\"" NO_FIELDS "\n", "line 2: a quote is not closed");
	check(HEADER "\n\"a\"\"b\",\"1,\n2\r\n\"" NO_FIELDS "\nx,\n",
		  "record=a\"b;text=1,\n2\r\n;\nline 5: there are too few fields");
}

static void
test_bad_csv(void)
{
	static const char no_export[] =
	"line 1: it is no export: neither JSON nor CSV with the header of one";

	check("", no_export);
	check("\n", no_export);
	check("hello", no_export);
	check("record,text\n", no_export);
	check(HEADER ",more\n", no_export);
	check(" {\"record\":\"end\"}", no_export);
	check(HEADER "\nend\n", "line 2: there are too few fields");
	check(HEADER "\nend,x" NO_FIELDS ",\n", "line 2: there are too many fields");
	check(HEADER "\nend,x,,,,,,,,,,,,,,,,\n", "line 2: there are too few fields");
	check(HEADER "\n\n", "line 2: there are too few fields");
	check(HEADER "\ne\"nd\",x" NO_FIELDS "\n", "line 2: a quote stands in the middle of a field");
	check(HEADER "\n\"end\"x,x" NO_FIELDS "\n", "line 2: something follows a closing quote");
	check(HEADER "\n\"end,x" NO_FIELDS "\n", "line 2: a quote is not closed");
	check(HEADER "\n\"", "line 2: a quote is not closed");
}

static void
test_limits(void)
{
	size_t		len = SL_EXPORT_RECORD_MAX + 200000;
	char	   *text = malloc(len);
	Source		source = {"{\"seq\":1}\n", 10, 4, true};
	SlExportReader *reader = sl_export_reader_new(read_piece, &source);
	Source		long_source = {NULL, 900003, 65536, false};
	SlExportReader *long_reader;
	SlExportRecord record;

	memset(text, 'x', len);
	CHECK_STR(read_all(text, len, 70000), "line 1: the record is too long");
	text[0] = '{';
	CHECK_STR(read_all(text, len, 70000), "line 1: the record is too long");
	/* as long as it may be */
	memcpy(text, "{\"note\":\"", 9);
	memcpy(text + 900000, "\"}\n", 3);
	long_source.text = text;
	long_reader = sl_export_reader_new(read_piece, &long_source);
	CHECK(sl_export_read(long_reader, &record) == SL_EXPORT_OK);
	CHECK_INT(record.fields[SL_AUDIT_NOTE].len, 900000 - 9);
	CHECK_INT(sl_export_read(long_reader, &record), SL_EXPORT_END);
	sl_export_reader_free(long_reader);
	/* a zero is a byte like any other */
	CHECK_STR(read_all("{\"note\":\"a\0b\"}", 14, 5), "line 1: a string holds a control character");
	free(text);

	/* what can't be read is not the end */
	CHECK_INT(sl_export_read(reader, &record), SL_EXPORT_OK);
	CHECK_INT(sl_export_read(reader, &record), SL_EXPORT_FAILED);
	CHECK_STR(sl_export_reader_error(reader), "it could not be read");
	sl_export_reader_free(reader);
	sl_export_reader_free(NULL);
}

int
main(void)
{
	test_json();
	test_bad_json();
	test_csv();
	test_bad_csv();
	test_limits();
	return unit_done();
}
