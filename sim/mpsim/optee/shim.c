/*
 * Plays the kernel's TEE subsystem (linux/tee.h) for a program started with LD_PRELOAD: /dev/tee0 opens, and the ioctls
 * of magic 0xa4 on what was opened are answered as drivers/tee would. Memory of the caller is touched here; what has a
 * state (shared memory, sessions, the secure world) lives in a server (serve.py) behind the socket that
 * MPSIM_TEE_SOCKET names. Everything else goes to the C library unchanged.
 *
 * What open() gives is a socket connected to that server: it closes, is duplicated, inherited and forgotten as a file
 * of the device would be, and the server sees its end. Its autobound name tells the context to every later call, so
 * nothing is remembered here and fork and exec need no care.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define TEE_NODE "/dev/tee0"
#define SOCKET_VARIABLE "MPSIM_TEE_SOCKET"

#define VERSION 0x800ca400u
#define SHM_ALLOC 0xc010a401u
#define OPEN_SESSION 0x8010a402u
#define INVOKE 0x8010a403u
#define CANCEL 0x8008a404u
#define CLOSE_SESSION 0x8004a405u
#define SHM_REGISTER 0xc018a409u

#define RECORD_MAX_BYTES 1024u /* TEE_MAX_ARG_SIZE */
#define PARAM_BYTES 32u
#define OPEN_HEAD_BYTES 56u
#define OPEN_NUM_PARAMS_AT 52u
#define INVOKE_HEAD_BYTES 24u
#define INVOKE_NUM_PARAMS_AT 20u

#define CONTEXT_BYTES 8u

struct request {
	uint32_t ioctl;
	char context[CONTEXT_BYTES];
	unsigned char body[RECORD_MAX_BYTES];
};

struct answer {
	int32_t result; /* of the ioctl: not negative, or minus errno */
	unsigned char body[RECORD_MAX_BYTES];
};

struct buffer {
	uint64_t pointer;
	uint64_t length;
};

/* The next definition of a name, which is the C library's. */
static void *next(const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);

	if (!found) {
		fprintf(stderr, "tee shim: no %s below us\n", name);
		abort();
	}
	return found;
}

static socklen_t server_address(struct sockaddr_un *address)
{
	const char *path = getenv(SOCKET_VARIABLE);

	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	if (!path || strlen(path) >= sizeof(address->sun_path)) {
		fprintf(stderr, "tee shim: " SOCKET_VARIABLE " is not set, or too long\n");
		abort();
	}
	strcpy(address->sun_path, path);
	return sizeof(*address);
}

/* A connection to the server, or minus errno. A named one is a context. */
static int reach_server(int named, int flags)
{
	struct sockaddr_un address, unnamed = { .sun_family = AF_UNIX };
	socklen_t length = server_address(&address);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | flags, 0);

	if (fd < 0)
		return -errno;
	if ((named && bind(fd, (struct sockaddr *)&unnamed, sizeof(unnamed.sun_family))) ||
	    connect(fd, (struct sockaddr *)&address, length)) {
		fprintf(stderr, "tee shim: nobody serves %s: %s\n", address.sun_path, strerror(errno));
		close(fd);
		return -EIO;
	}
	return fd;
}

/*
 * One answer, with the descriptor that came beside it or -1 in *passed; its length or minus errno. Signals with a
 * handler do not end the wait: the kernel waits for the secure world killably, so only a fatal signal does.
 */
static ssize_t hear(int fd, struct answer *answer, int *passed)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec piece = { .iov_base = answer, .iov_len = sizeof(*answer) };
	struct msghdr message = { .msg_iov = &piece,
				  .msg_iovlen = 1,
				  .msg_control = control.space,
				  .msg_controllen = sizeof(control.space) };
	struct cmsghdr *beside;
	ssize_t got;

	do
		got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < (ssize_t)sizeof(answer->result)) {
		fprintf(stderr, "tee shim: the server went away\n");
		return -EIO;
	}
	*passed = -1;
	beside = CMSG_FIRSTHDR(&message);
	if (beside && beside->cmsg_level == SOL_SOCKET && beside->cmsg_type == SCM_RIGHTS)
		memcpy(passed, CMSG_DATA(beside), sizeof(int));
	return got - (ssize_t)sizeof(answer->result);
}

/* Asks the server on a connection of its own, so that a call that blocks holds up no other. Result or minus errno. */
static long ask(struct request *request, size_t length, struct answer *answer, int *passed)
{
	int fd = reach_server(0, SOCK_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return fd;
	if (send(fd, request, offsetof(struct request, body) + length, MSG_NOSIGNAL) < 0)
		got = -EIO;
	else
		got = hear(fd, answer, passed);
	close(fd);
	return got < 0 ? got : answer->result;
}

/* copy_from_user and copy_to_user: a bad pointer is EFAULT and no crash. */
static int from_caller(void *to, uint64_t from, size_t size)
{
	struct iovec here = { to, size }, there = { (void *)(uintptr_t)from, size };

	return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (ssize_t)size ? 0 : -EFAULT;
}

static int to_caller(uint64_t to, void *from, size_t size)
{
	struct iovec here = { from, size }, there = { (void *)(uintptr_t)to, size };

	return process_vm_writev(getpid(), &here, 1, &there, 1, 0) == (ssize_t)size ? 0 : -EFAULT;
}

/* Calls whose argument is one small structure, written back where the direction bits say so. */
static long pass_flat(struct request *request, uint64_t argument, size_t in, size_t out)
{
	struct answer answer;
	int passed = -1;
	long result;

	if (in && from_caller(request->body, argument, in))
		return -EFAULT;
	result = ask(request, in, &answer, &passed);
	if (result < 0)
		return result;
	if (out && to_caller(argument, answer.body, out)) {
		if (passed >= 0)
			close(passed);
		return -EFAULT;
	}
	return passed >= 0 ? passed : result;
}

/* OPEN_SESSION and INVOKE: the argument points to a record whose length must be exactly that of its parameters. */
static long pass_record(struct request *request, uint64_t argument, size_t head, size_t num_params_at)
{
	struct buffer buffer;
	struct answer answer;
	uint32_t num_params;
	int passed;
	long result;

	if (from_caller(&buffer, argument, sizeof(buffer)))
		return -EFAULT;
	if (buffer.length > RECORD_MAX_BYTES || buffer.length < head)
		return -EINVAL;
	if (from_caller(request->body, buffer.pointer, buffer.length))
		return -EFAULT;
	memcpy(&num_params, request->body + num_params_at, sizeof(num_params));
	if (head + (uint64_t)num_params * PARAM_BYTES != buffer.length)
		return -EINVAL;
	result = ask(request, buffer.length, &answer, &passed);
	if (result < 0)
		return result;
	return to_caller(buffer.pointer, answer.body, buffer.length) ? -EFAULT : result;
}

static long answer_tee(struct request *request, uint64_t argument)
{
	switch (request->ioctl) {
	case VERSION:
		return pass_flat(request, argument, 0, 12);
	case SHM_ALLOC:
		return pass_flat(request, argument, 16, 16);
	case SHM_REGISTER:
		prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); /* the server reads and writes what is registered */
		return pass_flat(request, argument, 24, 24);
	case OPEN_SESSION:
		return pass_record(request, argument, OPEN_HEAD_BYTES, OPEN_NUM_PARAMS_AT);
	case INVOKE:
		return pass_record(request, argument, INVOKE_HEAD_BYTES, INVOKE_NUM_PARAMS_AT);
	case CANCEL:
		return pass_flat(request, argument, 8, 0);
	case CLOSE_SESSION:
		return pass_flat(request, argument, 4, 0);
	default:
		return -EINVAL;
	}
}

/* Whether this descriptor is a context, whose name is then filled in. */
static int is_context(int fd, char context[CONTEXT_BYTES])
{
	struct sockaddr_un peer, own, server;
	socklen_t length = sizeof(peer);

	if (!getenv(SOCKET_VARIABLE) || getpeername(fd, (struct sockaddr *)&peer, &length) ||
	    length <= offsetof(struct sockaddr_un, sun_path) || peer.sun_family != AF_UNIX)
		return 0;
	server_address(&server);
	if (strncmp(peer.sun_path, server.sun_path, sizeof(server.sun_path)))
		return 0;
	length = sizeof(own);
	memset(&own, 0, sizeof(own));
	if (getsockname(fd, (struct sockaddr *)&own, &length) || own.sun_path[0] || !own.sun_path[1])
		return 0;
	memcpy(context, own.sun_path + 1, CONTEXT_BYTES);
	return 1;
}

int ioctl(int fd, unsigned long number, ...)
{
	struct request request = { .ioctl = (uint32_t)number };
	int kept = errno;
	unsigned long argument;
	va_list rest;
	long result;

	va_start(rest, number);
	argument = va_arg(rest, unsigned long);
	va_end(rest);
	/* FIOCLEX and FIONCLEX are the file table's own. */
	if (number == FIOCLEX || number == FIONCLEX || !is_context(fd, request.context)) {
		errno = kept;
		return ((int (*)(int, unsigned long, ...))next("ioctl"))(fd, number, argument);
	}
	result = answer_tee(&request, argument);
	errno = result < 0 ? (int)-result : kept;
	return result < 0 ? -1 : (int)result;
}

static int open_tee(int flags)
{
	struct request request = { .ioctl = 0 };
	struct answer answer;
	int fd = reach_server(1, flags & O_CLOEXEC ? SOCK_CLOEXEC : 0), passed;
	ssize_t got = -EIO;

	if (fd >= 0 && send(fd, &request, offsetof(struct request, body), MSG_NOSIGNAL) >= 0)
		got = hear(fd, &answer, &passed);
	if (fd >= 0 && got >= 0 && answer.result == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	errno = fd < 0 ? -fd : got < 0 ? (int)-got : -answer.result;
	return -1;
}

static int is_node(const char *path)
{
	return path && !strcmp(path, TEE_NODE);
}

#define OPENING(name)                                                                     \
	int name(const char *path, int flags, ...)                                        \
	{                                                                                 \
		mode_t mode;                                                              \
		va_list rest;                                                             \
                                                                                          \
		va_start(rest, flags);                                                    \
		mode = va_arg(rest, mode_t);                                              \
		va_end(rest);                                                             \
		if (is_node(path))                                                        \
			return open_tee(flags);                                           \
		return ((int (*)(const char *, int, ...))next(#name))(path, flags, mode); \
	}

#define OPENING_AT(name)                                                                               \
	int name(int folder, const char *path, int flags, ...)                                         \
	{                                                                                              \
		mode_t mode;                                                                           \
		va_list rest;                                                                          \
                                                                                                       \
		va_start(rest, flags);                                                                 \
		mode = va_arg(rest, mode_t);                                                           \
		va_end(rest);                                                                          \
		if (is_node(path))                                                                     \
			return open_tee(flags);                                                        \
		return ((int (*)(int, const char *, int, ...))next(#name))(folder, path, flags, mode); \
	}

OPENING(open)
OPENING(open64)
OPENING_AT(openat)
OPENING_AT(openat64)
