// SPDX-License-Identifier: Apache-2.0
/* Ids, small helpers, and the module itself. */
#include "core.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

struct core core = {
	.cpu_split_ns = -1,
	.limits =
		{
			.value_length = 4096,
			.attributes = 128,
			.events = 128,
			.links = 128,
			.event_attributes = 128,
			.link_attributes = 128,
		},
};

/* ---- ids --------------------------------------------------------------------------- */

/* xoshiro256** 1.0 (Blackman, Vigna 2018), seeded by the kernel; one per process, which the GIL
 * guards. */
static uint64_t state[4];

static uint64_t rotate_left(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

static void seed_ids(void)
{
	/* getrandom() of so few bytes neither blocks after boot nor is interrupted; the clock
	 * serves where it is forbidden */
	if (getrandom(state, sizeof(state), 0) != sizeof(state)) {
		struct timespec now;

		clock_gettime(CLOCK_REALTIME, &now);
		state[0] = (uint64_t)now.tv_nsec ^ ((uint64_t)getpid() << 32);
		state[1] = (uint64_t)now.tv_sec;
		state[2] ^= (uint64_t)(uintptr_t)&now;
		state[3] |= 1;
	}
}

/* xoshiro's one state that it never leaves, and whose numbers are all 0, is that of a test with
 * fixed ids: asking for it costs a real id nothing. */
static uint64_t next_fixed_id;

static uint64_t fixed_id(void)
{
	return next_fixed_id ? next_fixed_id++ : 0;
}

uint64_t random_id(void)
{
	uint64_t result, shifted;

	do {
		result = rotate_left(state[1] * 5, 7) * 9;
		shifted = state[1] << 17;
		state[2] ^= state[0];
		state[3] ^= state[1];
		state[1] ^= state[2];
		state[0] ^= state[3];
		state[2] ^= shifted;
		state[3] = rotate_left(state[3], 45);
	} while (!result && !(result = fixed_id()));
	return result;
}

/* For tests: ids that count up from `first`; 0 makes them random again. */
static void fix_ids(uint64_t first)
{
	next_fixed_id = first;
	if (first)
		memset(state, 0, sizeof(state));
	else
		seed_ids();
}

static void in_forked_child(void)
{
	fix_ids(0);
	core.generation++;
}

static int64_t fixed_now_ns, fixed_step_ns;

int64_t now_ns(void)
{
	struct timespec now;

	if (fixed_now_ns) {
		int64_t reading = fixed_now_ns;

		fixed_now_ns += fixed_step_ns;
		return reading;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- helpers ----------------------------------------------------------------------- */

const char *utf8(PyObject *text, Py_ssize_t *size, PyObject **keep)
{
	Py_ssize_t ignored;
	const char *bytes = PyUnicode_AsUTF8AndSize(text, size ? size : &ignored);

	if (bytes || !PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
		return bytes;
	PyErr_Clear();
	*keep = PyUnicode_AsEncodedString(text, "utf-8", "replace");
	if (!*keep)
		return NULL;
	if (size)
		*size = PyBytes_GET_SIZE(*keep);
	return PyBytes_AS_STRING(*keep);
}

int suppress_error(void)
{
	if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError))
		return -1;
	PyErr_Clear();
	return 0;
}

void report(const char *what, PyObject *subject, PyObject *value)
{
	PyObject *result;

	if (!core.on_invalid)
		return;
	result = PyObject_CallFunction(core.on_invalid, "sOO", what, subject, value);
	if (!result)
		PyErr_Clear(); /* a warning that fails must not break the application either */
	Py_XDECREF(result);
}

PyObject *plain_text(PyObject *object)
{
	PyObject *text, *plain;

	if (PyUnicode_CheckExact(object))
		return Py_NewRef(object);
	if (PyUnicode_Check(object))
		return PyUnicode_FromObject(object);
	text = PyObject_Str(object);
	if (!text) {
		if (suppress_error())
			return NULL;
		return PyUnicode_FromFormat("<%s>", Py_TYPE(object)->tp_name);
	}
	plain = PyUnicode_FromObject(text);
	Py_DECREF(text);
	return plain;
}

static int find_name(PyObject *const *names, PyObject *name)
{
	for (int i = 0; names[i]; i++)
		if (names[i] == name) /* interned, as keywords in source code are */
			return i;
	for (int i = 0; names[i]; i++)
		if (!PyUnicode_Compare(names[i], name))
			return i;
	return -1;
}

int bind_arguments(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
		   PyObject *const *names, int positional, PyObject **values)
{
	if (nargs > positional) {
		PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional arguments, not %zd",
			     function, positional, nargs);
		return -1;
	}
	for (Py_ssize_t i = 0; i < nargs; i++)
		values[i] = args[i];
	for (Py_ssize_t i = 0; kwnames && i < PyTuple_GET_SIZE(kwnames); i++) {
		PyObject *name = PyTuple_GET_ITEM(kwnames, i);
		int index = find_name(names, name);

		if (index < 0 || values[index]) {
			PyErr_Format(PyExc_TypeError, "%s() got %s argument '%U'", function,
				     index < 0 ? "an unknown" : "two values for", name);
			return -1;
		}
		values[index] = args[nargs + i];
	}
	return 0;
}

/* ---- module functions -------------------------------------------------------------- */

static PyObject *core_setup(PyObject *module, PyObject *args, PyObject *kwargs)
{
	static char *keywords[] = {"context_variable",	"context_type", "span_key",   "kinds",
				   "make_span_context", "ask_sampler",	"on_invalid", NULL};
	PyObject *variable, *type, *key, *kinds, *make, *ask, *invalid;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OUO!OOO:setup", keywords,
					 &PyContextVar_Type, &variable, &type, &key, &PyTuple_Type,
					 &kinds, &make, &ask, &invalid))
		return NULL;
	if (PyTuple_GET_SIZE(kinds) != 5) {
		PyErr_SetString(PyExc_ValueError,
				"kinds are the five of OpenTelemetry's SpanKind, in their order");
		return NULL;
	}
	Py_XSETREF(core.context_variable, Py_NewRef(variable));
	Py_XSETREF(core.context_type, Py_NewRef(type));
	Py_XSETREF(core.span_key, Py_NewRef(key));
	for (int i = 0; i < 5; i++)
		Py_XSETREF(core.kinds[i], Py_NewRef(PyTuple_GET_ITEM(kinds, i)));
	Py_XSETREF(core.make_span_context, Py_NewRef(make));
	Py_XSETREF(core.ask_sampler, Py_NewRef(ask));
	Py_XSETREF(core.on_invalid, Py_NewRef(invalid));
	Py_RETURN_NONE;
}

static PyObject *core_connect(PyObject *module, PyObject *path)
{
	const struct k8s_tracing_provider *provider;
	PyObject *bytes;
	void *library;

	if (!PyUnicode_FSConverter(path, &bytes))
		return NULL;
	library = dlopen(PyBytes_AS_STRING(bytes), RTLD_NOW | RTLD_LOCAL);
	Py_DECREF(bytes);
	provider = library ? dlsym(library, "k8s_tracing_provider") : NULL;
	if (!provider) {
		PyErr_Format(PyExc_OSError, "%s", dlerror());
		return NULL;
	}
	if (provider->abi != K8S_TRACING_PROVIDER_ABI) {
		PyErr_Format(PyExc_OSError,
			     "%S speaks version %u of the provider's interface, this package %d: "
			     "both must come from one build",
			     path, provider->abi, K8S_TRACING_PROVIDER_ABI);
		return NULL;
	}
	core.provider = provider; /* for good: LTTng cannot be unloaded */
	Py_RETURN_NONE;
}

static PyObject *core_set_default(PyObject *module, PyObject *tracer)
{
	Py_XSETREF(core.default_tracer, Py_NewRef(tracer));
	Py_RETURN_NONE;
}

static PyObject *core_set_limits(PyObject *module, PyObject *args, PyObject *kwargs)
{
	static char *keywords[] = {"value_length",     "attributes",	  "events", "links",
				   "event_attributes", "link_attributes", NULL};
	struct limits limits;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nHHHHH:set_limits", keywords,
					 &limits.value_length, &limits.attributes, &limits.events,
					 &limits.links, &limits.event_attributes,
					 &limits.link_attributes))
		return NULL;
	if (limits.value_length < 0) {
		PyErr_SetString(PyExc_ValueError, "a length is not negative");
		return NULL;
	}
	core.limits = limits;
	Py_RETURN_NONE;
}

static PyObject *core_random_id(PyObject *module, PyObject *ignored)
{
	return PyLong_FromUnsignedLongLong(random_id());
}

static PyObject *core_fix_ids(PyObject *module, PyObject *first)
{
	uint64_t id = PyLong_AsUnsignedLongLong(first);

	if (PyErr_Occurred())
		return NULL;
	fix_ids(id);
	Py_RETURN_NONE;
}

/* (the next reading, what each reading adds to it) in ns; (0, 0) brings the real clock back.
 * Returns what the next reading would have been, 0 of the real clock. */
static PyObject *core_fix_clock(PyObject *module, PyObject *args)
{
	long long now, step, before = fixed_now_ns;

	if (!PyArg_ParseTuple(args, "LL:fix_clock", &now, &step))
		return NULL;
	fixed_now_ns = now;
	fixed_step_ns = step;
	return PyLong_FromLongLong(before);
}

static PyObject *core_encode_resource(PyObject *module, PyObject *mapping)
{
	struct attributes attributes = {0};
	PyObject *bytes = NULL;

	if (!attributes_update(&attributes, OTLP_RESOURCE_ATTRIBUTES, UINT16_MAX, mapping))
		bytes = PyBytes_FromStringAndSize((const char *)attributes.bytes, attributes.size);
	attributes_clear(&attributes);
	return bytes;
}

static PyMethodDef core_methods[] = {
	{"span", (PyCFunction)(void (*)(void))core_span, METH_FASTCALL | METH_KEYWORDS, NULL},
	{"current_context", current_context, METH_NOARGS, NULL},
	{"current_span", current_span, METH_NOARGS, NULL},
	{"context_value", context_value, METH_O, NULL},
	{"remote_span", remote_span, METH_O, NULL},
	{"setup", (PyCFunction)(void (*)(void))core_setup, METH_VARARGS | METH_KEYWORDS, NULL},
	{"connect", core_connect, METH_O, NULL},
	{"set_default", core_set_default, METH_O, NULL},
	{"set_limits", (PyCFunction)(void (*)(void))core_set_limits, METH_VARARGS | METH_KEYWORDS,
	 NULL},
	{"split_cpu", cpu_split, METH_VARARGS, NULL},
	{"random_id", core_random_id, METH_NOARGS, NULL},
	{"encode_resource", core_encode_resource, METH_O, NULL},
	{"fix_ids", core_fix_ids, METH_O, NULL},
	{"fix_clock", core_fix_clock, METH_VARARGS, NULL},
	{NULL},
};

/*
 * The state is the process's, so the module belongs to the interpreter that loaded it first:
 * another one (mod_wsgi makes some) is refused, and uses the fallback.
 */
static int core_exec(PyObject *module)
{
	static int64_t owner = -1;
	int64_t interpreter = PyInterpreterState_GetID(PyInterpreterState_Get());

	if (owner == -1) {
		seed_ids();
		pthread_atfork(NULL, NULL, in_forked_child);
		owner = interpreter;
	}
	if (owner != interpreter) {
		PyErr_SetString(
			PyExc_ImportError,
			"k8s_tracing._core serves one interpreter of a process, and another "
			"one has it already");
		return -1;
	}
	return values_init() || span_type_init(module) || tracer_type_init(module) ? -1 : 0;
}

static PyModuleDef_Slot core_slots[] = {
	{Py_mod_exec, core_exec},
#if PY_VERSION_HEX >= 0x030C0000
	{Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
	/* A free-threaded Python turns its GIL on for us: spans rely on it in place of locks. */
	{Py_mod_gil, Py_MOD_GIL_USED},
#endif
	{0, NULL},
};

static struct PyModuleDef core_module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "k8s_tracing._core",
	.m_doc = "The span path in C. Use k8s_tracing, not this.",
	.m_methods = core_methods,
	.m_slots = core_slots,
};

PyMODINIT_FUNC PyInit__core(void)
{
	return PyModuleDef_Init(&core_module);
}
