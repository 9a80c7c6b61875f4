/* The compiled twin of `send_each` in eager.py, which says what it does: the same bytes straight to many sockets, without
 * a Python call for each, and with the interpreter's lock released while the kernel works.
 *
 * Every socket is asked for its descriptor in the walk that precedes the sends, with the lock held: one that has been
 * closed answers -1, so that nothing is ever written to a number that stands for something else by now. The list holds
 * the outlets, and with them their sockets, until the sends are over.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <sys/socket.h>
#include <sys/types.h>

struct target {
    int fd; /* -1: nothing may go straight to the kernel */
    Py_ssize_t sent;
};

struct state {
    PyObject *eager; /* the name of the attribute */
};

/* The descriptor of an outlet's socket, -1 where it has none or a closed one, -2 with an exception set. */
static int descriptor(PyObject *outlet, PyObject *name) {
    PyObject *socket = PyObject_GetAttr(outlet, name);
    int fd = -1;
    if (!socket) return -2;
    if (socket != Py_None) {
        fd = PyObject_AsFileDescriptor(socket);
        if (fd < 0) {
            if (PyErr_ExceptionMatches(PyExc_ValueError)) PyErr_Clear();
            else fd = -2;
        }
    }
    Py_DECREF(socket);
    return fd;
}

static void send_all(struct target *targets, Py_ssize_t count, const char *data, Py_ssize_t size) {
    for (Py_ssize_t i = 0; i < count; i++) {
        ssize_t sent = 0;
        if (targets[i].fd >= 0) sent = send(targets[i].fd, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
        targets[i].sent = sent > 0 ? sent : 0;
    }
}

/* The outlets that did not get all, each with what the kernel took. */
static PyObject *left_over(PyObject *outlets, const struct target *targets, Py_ssize_t size) {
    PyObject *left = PyList_New(0);
    for (Py_ssize_t i = 0; left && i < PyList_Size(outlets); i++) {
        PyObject *pair;
        if (targets[i].sent == size) continue;
        pair = Py_BuildValue("(On)", PyList_GetItem(outlets, i), targets[i].sent);
        if (!pair || PyList_Append(left, pair)) Py_CLEAR(left);
        Py_XDECREF(pair);
    }
    return left;
}

static PyObject *send_each(PyObject *module, PyObject *args) {
    const struct state *state = PyModule_GetState(module);
    PyObject *given, *bytes, *outlets, *left = NULL;
    struct target *targets;
    Py_ssize_t count, size, i;
    char *data;
    if (!PyArg_ParseTuple(args, "OS:send_each", &given, &bytes)) return NULL;
    if (PyBytes_AsStringAndSize(bytes, &data, &size)) return NULL;
    outlets = PySequence_List(given);
    if (!outlets) return NULL;
    count = PyList_Size(outlets);
    targets = PyMem_Malloc((size_t)count * sizeof *targets);
    if (!targets) {
        PyErr_NoMemory();
        goto done;
    }
    for (i = 0; i < count; i++) {
        targets[i].fd = descriptor(PyList_GetItem(outlets, i), state->eager);
        if (targets[i].fd == -2) goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    send_all(targets, count, data, size);
    Py_END_ALLOW_THREADS
    left = left_over(outlets, targets, size);
done:
    PyMem_Free(targets);
    Py_DECREF(outlets);
    return left;
}

static int begin(PyObject *module) {
    struct state *state = PyModule_GetState(module);
    state->eager = PyUnicode_InternFromString("eager");
    return state->eager ? 0 : -1;
}

static int visit_state(PyObject *module, visitproc visit, void *arg) {
    struct state *state = PyModule_GetState(module);
    if (state) Py_VISIT(state->eager);
    return 0;
}

static int clear_state(PyObject *module) {
    struct state *state = PyModule_GetState(module);
    if (state) Py_CLEAR(state->eager);
    return 0;
}

static void free_state(void *module) { clear_state(module); }

static PyMethodDef methods[] = {
    {"send_each", send_each, METH_VARARGS, "send_each(outlets, data): see towerbus.wire.eager"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, begin},
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "towerbus.wire._eager",
    .m_size = sizeof(struct state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = visit_state,
    .m_clear = clear_state,
    .m_free = free_state,
};

PyMODINIT_FUNC PyInit__eager(void) { return PyModuleDef_Init(&definition); }
