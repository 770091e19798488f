/* State of the simulated GPUs and settings from tests, in a file that all processes map. */

#ifndef STATE_H
#define STATE_H

#include <stdint.h>
#include <sys/types.h>

#include "boards.h"

#define MAGIC 0x4d494721u
#define MAX_BOARDS 16
#define MAX_GIS 8
#define MAX_CIS 8
#define MAX_HOLDERS 64
#define MAX_FAULTS 16
#define UUID_SIZE 48
#define NAME_SIZE 64

/* A serial number of 0 marks an unused entry. Handles contain serial numbers, so that stale handles are detected. */
struct ci {
    uint64_t serial;
    unsigned id, profile, start, size;
    char uuid[UUID_SIZE];
};

struct gi {
    uint64_t serial;
    unsigned id, shape, start;
    uint64_t agent_until_ms; /* Time on the monotonic clock until which a monitoring agent holds the instance. */
    struct ci ci[MAX_CIS];
};

struct board {
    int model;
    unsigned current, pending; /* MIG mode */
    uint64_t counting_since_ms; /* Time on the monotonic clock from which its energy is counted. */
    uint64_t consumed_mj; /* Energy that tests have added. */
    char uuid[UUID_SIZE];
    struct gi gi[MAX_GIS];
};

/* A process that tests have made a holder of the instance, or the board, with this UUID. */
struct holder {
    pid_t pid;
    char uuid[UUID_SIZE];
};

enum action { FAIL, HANG, CRASH_BEFORE, CRASH_AFTER };

/* Fault of the n-th call with this name from now on, or of every one if `nth` is 0. The name `*` stands for any call,
 * `change` for any call that changes something. */
struct fault {
    char call[NAME_SIZE];
    unsigned nth, seen;
    enum action action;
    int code;
};

enum denial { DENY_CHANGES = 1, DENY_INSTANCES = 2 };

struct state {
    unsigned magic;
    unsigned loaded; /* 1 if the driver is loaded. */
    unsigned denied; /* Flags of `enum denial`. */
    unsigned create_ms, destroy_ms;
    uint64_t serial;
    int n_boards, n_holders, n_faults;
    struct board boards[MAX_BOARDS];
    struct holder holders[MAX_HOLDERS];
    struct fault faults[MAX_FAULTS];
};

struct mapping {
    int file;
    struct state *state;
    char path[512];
};

/* Maps the file. Returns 0 on failure. */
int map_state(struct mapping *mapping, const char *path, int create);
void unmap_state(struct mapping *mapping);
void lock_state(const struct mapping *mapping);
void unlock_state(const struct mapping *mapping);

uint64_t now_ms(void);
void new_uuid(const char *prefix, char uuid[UUID_SIZE]);

/* Finds the processes that hold the instance or board with this UUID: those that were started with it in
 * CUDA_VISIBLE_DEVICES, and those in `holders`. Writes at most `room` process ids and returns the total number. */
unsigned find_holders(const struct state *state, const char *uuid, pid_t *pids, unsigned room);

/* Functions that NVML calls and tests share. */
const struct shape *shape_of(const struct board *board, unsigned index);
int can_place(const struct board *board, unsigned shape, unsigned start);
struct gi *place_gi(struct state *state, struct board *board, unsigned shape, unsigned start);
struct ci *place_ci(struct state *state, struct gi *gi, unsigned profile, unsigned start, unsigned size);

#endif
