/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The extension module k8s_tracing._core: the span path of CPython.
 *
 *	attributes.c  OTLP bytes of attributes, written when they are set
 *	values.c      what may be an attribute's value
 *	attributes_read.c  attributes as Python's again
 *	context.c     the one variable that holds the current span, and OpenTelemetry's view of it
 *	span.c        the life of a span
 *	span_details.c  its links and events
 *	span_type.c   the Span type, its face to Python
 *	sampling.c    whether a span is recorded
 *	cpu.c         where a request's time went
 *	remote.c      the span of another process
 *	tracer.c      the Tracer type: makes spans
 *	core.c        ids, the module, and what it takes from OpenTelemetry's Python API
 *
 * Everything here runs with the GIL held and never gives it up: that is what makes a span cheap
 * beside busy threads.
 */
#ifndef K8S_TRACING_CORE_H
#define K8S_TRACING_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "emit.h"
#include "otlp.h"

/* ---- core.c ------------------------------------------------------------------------ */

/* Limits as OpenTelemetry names them; lengths in characters (bytes for bytes). */
struct limits {
	Py_ssize_t value_length;
	uint16_t attributes;
	uint16_t events;
	uint16_t links;
	uint16_t event_attributes;
	uint16_t link_attributes;
};

/* One module, one interpreter (it refuses to be loaded into a second): plain globals are the
 * fastest state. */
extern struct core {
	/* NULL until an LTTng provider is connected. */
	const struct k8s_tracing_provider *provider;
	struct limits limits;
	/* The shortest span, in ns, that is told where its time went; -1: none is measured. */
	int64_t cpu_split_ns;
	/* Counts forks: a span of the parent process is not the child's to end. */
	uint32_t generation;

	/* Parts of OpenTelemetry's API, taken by setup(). */
	PyObject *context_variable;
	PyObject *context_type;
	PyObject *span_key;
	PyObject *kinds[5];
	PyObject *make_span_context; /* (trace_id, span_id, is_remote, flags, trace_state) ->
					SpanContext */
	PyObject *ask_sampler; /* (sampler, context, trace_id, ...) -> (record, sample, attributes,
				  state) */
	PyObject *on_invalid;  /* (what, subject, value): says once a place what was not taken */

	PyObject *sequence_type; /* of collections.abc */
	PyObject *mapping_type;
	PyTypeObject *span_type;
	PyTypeObject *tracer_type;
	PyObject *default_tracer;
} core;

uint64_t random_id(void); /* never 0 */
int64_t now_ns(void);	  /* since the Unix epoch */

/* UTF-8 of a str, which lone surrogates do not stop; *keep owns the bytes when they are not the
 * str's own. */
const char *utf8(PyObject *text, Py_ssize_t *size, PyObject **keep);

/*
 * Binds a fastcall's arguments to `names` (NULL-terminated), borrowed; an argument that was not
 * given stays as it is. The first `positional` of them may be given without their name. -1 and
 * TypeError when the call does not fit.
 */
int bind_arguments(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
		   PyObject *const *names, int positional, PyObject **values);

/*
 * Tracing must not break the application: clears an exception, but not one that says that memory
 * is short or that is no Exception (KeyboardInterrupt): then -1.
 */
int suppress_error(void);

/* Says once a place that something was not taken as it was given; see native.py for what. */
void report(const char *what, PyObject *subject, PyObject *value);

/* A str of exactly that type (a subclass could hold a cycle), whatever is given. */
PyObject *plain_text(PyObject *object);

/* ---- attributes.c ------------------------------------------------------------------ */

/* A run of OTLP fields `attributes = KeyValue`, all with the same tag. */
struct attributes {
	uint8_t *bytes;
	uint32_t size;
	uint32_t capacity;
	uint16_t count;
	uint16_t dropped;
	bool sealed; /* the span has ended: nothing is added any more */
};

/*
 * A key that is there already is replaced; past `limit` the attribute is dropped and counted; a key
 * or value that OpenTelemetry does not allow is dropped with a warning. -1 with an exception only
 * without memory.
 */
int attributes_set(struct attributes *a, uint8_t tag, uint16_t limit, PyObject *key,
		   PyObject *value);
int attributes_update(struct attributes *a, uint8_t tag, uint16_t limit, PyObject *mapping);
int attributes_append_string(struct attributes *a, uint8_t tag, PyObject *text);
/* Ours, which no limit on the number of attributes drops; the key and text are ASCII. */
int attributes_put_int(struct attributes *a, uint8_t tag, const char *key, uint64_t number);
int attributes_put_bool(struct attributes *a, uint8_t tag, const char *key, bool truth);
int attributes_put_text(struct attributes *a, uint8_t tag, const char *key, const char *text);
/* Zeros behind the last field, as the provider wants them; to be done before the bytes are emitted.
 */
int attributes_pad(struct attributes *a);
PyObject *attributes_to_dict(const struct attributes *a, uint8_t tag);
void attributes_clear(struct attributes *a);
int values_init(void);

/* ---- span.c ------------------------------------------------------------------------ */

typedef struct Tracer Tracer;

typedef struct {
	PyObject_HEAD Tracer *tracer;
	PyObject *name;
	uint64_t trace_id_high;
	uint64_t trace_id_low;
	uint64_t span_id;
	uint64_t parent_span_id;
	int64_t start_time_ns; /* 0: the event's own time */
	int64_t end_time_ns;
	PyObject *trace_state; /* NULL: empty */
	PyObject *base;	    /* the Context below, while this span is current; NULL: an empty one */
	PyObject *token;    /* of the context variable, while this span is current */
	PyObject *deferred; /* (context, attributes, links) of a span that starts when it is entered
			     */
	PyObject *span_context; /* made when somebody asks */
	PyObject *events;	/* lists, only kept for a tracer with listeners */
	PyObject *links;
	PyObject *status_message;
	struct cpu *cpu; /* see cpu.c; NULL: not measured */
	PyObject *dict;	 /* what others put on a span, as they may on OpenTelemetry's */
	PyObject *weak_references;
	struct attributes attributes;
	uint32_t generation;
	uint16_t event_count;
	uint16_t link_count;
	uint8_t kind;  /* OTLP's number */
	uint8_t flags; /* W3C */
	uint8_t status;
	bool started : 1;
	bool ended : 1;
	bool recording : 1; /* attributes are kept */
	bool emitted : 1;   /* start_span went to LTTng */
	bool listened : 1;  /* the tracer had listeners when it started */
	bool renamed : 1;
	bool parent_is_remote : 1;
	bool remote : 1; /* not of this process: see remote.c */
	bool make_current : 1;
	bool end_on_exit : 1;
	bool record_exception : 1;
	bool status_on_exception : 1;
} Span;

#define Span_Check(object) (Py_TYPE(object) == core.span_type)

/* What a span is started with; borrowed references, NULL where not given. */
struct span_arguments {
	PyObject *name;
	PyObject *context;
	PyObject *kind;
	PyObject *attributes;
	PyObject *links;
	PyObject *start_time;
	PyObject *record_exception;
	PyObject *status_on_exception;
	PyObject *end_on_exit;
};

/* What a span needs to know when it starts; borrowed, Py_None where not given. */
struct span_start {
	PyObject *context;
	PyObject *attributes;
	PyObject *links;
};

/* A new span: made current and started by `with` if make_current, else started now. */
PyObject *span_new(Tracer *tracer, const struct span_arguments *arguments, bool make_current);
/* An empty one, not yet tracked by the garbage collector. */
Span *span_alloc(void);
/* Of a span whose references were dropped. */
void span_free(Span *span);
int span_start(Span *span, const struct span_start *start);
int span_finish(Span *span);
/* How many of `count` were dropped. */
uint16_t over(uint16_t count, uint16_t limit);
/* The trace state's header, as a field of a span or of a link. */
int trace_state_append(struct attributes *attributes, PyObject *trace_state);
/* Nanoseconds; 0 for NULL, None, and what cannot be a time. */
int64_t time_argument(PyObject *time);

/* Both halves of the trace id, as an int. */
PyObject *span_trace_id(const Span *span);

/* What the span is told to; NULL: nobody, as for a span of the process that was forked. */
static inline const struct k8s_tracing_provider *span_provider(const Span *span)
{
	return span->emitted && span->generation == core.generation ? core.provider : NULL;
}

/* ---- span_details.c ---------------------------------------------------------------- */

/* Of a recording span that has not ended; past the limits they are counted and dropped. */
int span_event(Span *span, PyObject *name, PyObject *attributes, int64_t time_ns);
int span_link(Span *span, PyObject *span_context, PyObject *attributes);
/* OpenTelemetry's Link objects, as they are given to start_span(). */
int span_links(Span *span, PyObject *links);

/* ---- cpu.c ------------------------------------------------------------------------- */

/* Of a local root span, when core.cpu_split_ns says so: the first thing known of it is where its
 * thread stands. */
void cpu_start(Span *span);
/* Adds what has become of the thread; only of a span with `cpu`. -1 without memory. */
int cpu_finish(Span *span);
/* Forget it, likewise; also of one that nobody ended. */
void cpu_drop(Span *span);
PyObject *cpu_split(PyObject *module, PyObject *args);

/* ---- remote.c ---------------------------------------------------------------------- */

PyObject *remote_span(PyObject *module, PyObject *header);

/* ---- sampling.c -------------------------------------------------------------------- */

#define W3C_SAMPLED 0x01
#define W3C_RANDOM 0x02 /* Trace Context level 2: the trace id's right half is random */

struct sampling {
	int record;
	int sample;
	PyObject *attributes; /* to be set instead of those given; a reference, or NULL */
};

/* Never fails: what a sampler of the user's raises is reported. */
void sampling_decide(Span *span, const struct span_start *start, struct sampling *sampling);

/* ---- span_type.c ------------------------------------------------------------------- */

int span_type_init(PyObject *module);

/* ---- context.c --------------------------------------------------------------------- */

/* The span a new one has as its parent. */
struct parent {
	uint64_t trace_id_high;
	uint64_t trace_id_low;
	uint64_t span_id;      /* 0: there is none */
	PyObject *trace_state; /* a reference, or NULL: empty */
	uint8_t flags;
	bool is_remote;
};

/* From a Context, or from what is current when `context` is NULL. */
int parent_find(PyObject *context, struct parent *parent);
/* The ids, flags and state of an OpenTelemetry SpanContext; span_id 0 when it is not valid. The
 * state is to be released then, too. */
int parent_from_span_context(PyObject *span_context, struct parent *parent);
int span_make_current(Span *span);
void span_leave_current(Span *span);
PyObject *current_context(PyObject *module, PyObject *ignored);
PyObject *current_span(PyObject *module, PyObject *ignored);
PyObject *context_value(PyObject *module, PyObject *key);

/* ---- tracer.c ---------------------------------------------------------------------- */

struct Tracer {
	PyObject_HEAD PyObject *on_start; /* (span, parent context or None), or NULL */
	PyObject *on_end;		  /* (span), or NULL */
	PyObject *sampler;     /* an OpenTelemetry Sampler, or NULL: the next two decide */
	uint64_t sample_below; /* of a root's right half of the trace id; UINT64_MAX: all */
	bool parent_based;     /* a child is sampled as its parent is */
	PyObject *scope;       /* OpenTelemetry's InstrumentationScope-like; for readers only */
	PyObject *resource;
	uint16_t scope_id;
	bool emit; /* to LTTng, when a provider is connected */
};

#define Tracer_Check(object) (Py_TYPE(object) == core.tracer_type)

int tracer_type_init(PyObject *module);
PyObject *core_span(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);

#endif
