/* What the stand-in's GPUs are at, in a file that all processes map; and what tests have asked for. */

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

/* A serial number of 0 marks what is not there. Handles carry serial numbers, so stale ones are known as such. */
struct ci {
    uint64_t serial;
    unsigned id, profile, start, size;
    char uuid[UUID_SIZE];
};

struct gi {
    uint64_t serial;
    unsigned id, shape, start;
    uint64_t agent_until_ms; /* An agent holds it until then, by the monotonic clock. */
    struct ci ci[MAX_CIS];
};

struct board {
    int model;
    unsigned current, pending; /* MIG mode */
    char uuid[UUID_SIZE];
    struct gi gi[MAX_GIS];
};

/* A process that is said to hold the instance, or the board, of this UUID. */
struct holder {
    pid_t pid;
    char uuid[UUID_SIZE];
};

enum action { FAIL, HANG, CRASH_BEFORE, CRASH_AFTER };

/* The n-th call from now on of this name (`*`: of any, `change`: of any that changes something) comes to this end;
 * 0: every one of them. */
struct fault {
    char call[NAME_SIZE];
    unsigned nth, seen;
    enum action action;
    int code;
};

enum denial { DENY_CHANGES = 1, DENY_INSTANCES = 2 };

struct state {
    unsigned magic;
    unsigned loaded; /* Whether the driver is. */
    unsigned denied; /* Of `enum denial`. */
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

/* Maps the file; 0 where that cannot be done. */
int map_state(struct mapping *mapping, const char *path, int create);
void unmap_state(struct mapping *mapping);
void lock_state(const struct mapping *mapping);
void unlock_state(const struct mapping *mapping);

uint64_t now_ms(void);
void new_uuid(const char *prefix, char uuid[UUID_SIZE]);

/* Ids of the processes that hold what has this UUID: those that were started with it in CUDA_VISIBLE_DEVICES, and those
 * that are said to. At most `room` are written; returns how many there are. */
unsigned find_holders(const struct state *state, const char *uuid, pid_t *pids, unsigned room);

/* What both NVML and a test can do. */
const struct shape *shape_of(const struct board *board, unsigned index);
int can_place(const struct board *board, unsigned shape, unsigned start);
struct gi *place_gi(struct state *state, struct board *board, unsigned shape, unsigned start);
struct ci *place_ci(struct state *state, struct gi *gi, unsigned profile, unsigned start, unsigned size);

#endif
