/* Beginning and end of each call of the library, its handles, and the types of its arguments. */

#ifndef CALLS_H
#define CALLS_H

#include "state.h"

#define API __attribute__((visibility("default")))

enum {
    OK = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NO_PERMISSION = 4,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    RESET_REQUIRED = 16,
    IN_USE = 19,
    INSUFFICIENT_RESOURCES = 23,
    VERSION_MISMATCH = 25,
};

#define PROFILE_VERSION 0x02000098u
#define CI_PROFILE_VERSION 0x02000088u
#define MEMORY_VERSION 0x02000028u
#define N_GI_PROFILES 18
#define N_CI_PROFILES 9
#define NONE 0xFFFFFFFFu

typedef struct { unsigned start, size; } placement_t;

typedef struct {
    unsigned id, p2p, slices, instances, multiprocessors, copy, decoders, encoders, jpeg, ofa;
    unsigned long long mib;
} profile_t;

typedef struct {
    unsigned version, id, p2p, slices, instances, multiprocessors, copy, decoders, encoders, jpeg, ofa;
    unsigned long long mib;
    char name[96];
} profile_v2_t;

typedef struct {
    unsigned id, slices, instances, multiprocessors, copy, decoders, encoders, jpeg, ofa;
} ci_profile_t;

typedef struct {
    unsigned version, id, slices, instances, multiprocessors, copy, decoders, encoders, jpeg, ofa;
    char name[96];
} ci_profile_v2_t;

typedef struct { void *device; unsigned id, profile; placement_t placement; } gi_info_t;
typedef struct { void *device, *gi; unsigned id, profile; placement_t placement; } ci_info_t;
typedef struct { unsigned pid; unsigned long long memory; unsigned gi, ci; } process_t;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned holders; } gpm_sample_t;
typedef struct { unsigned id; int code; double value; const char *texts[3]; } gpm_metric_t;
typedef struct { unsigned version, count; gpm_sample_t *first, *second; gpm_metric_t metrics[]; } gpm_metrics_t;

enum effect { READS, CREATES, DESTROYS, CHANGES };

struct call {
    const char *name;
    int code, crash;
};

extern struct mapping mapping;
extern int references; /* Calls of nvmlInit without one of nvmlShutdown. */

void open_audit(void);

/* Locks the state, unless the library is not initialised, and applies the faults of the call. */
struct call begin(const char *name, enum effect effect);

/* Writes the call with its arguments to the log, unlocks the state, and returns the code of the call. */
int end(const struct call *call, const char *format, ...);

enum kind { DEVICE = 1, MIG_DEVICE, GI, CI };

void *handle_of(enum kind kind, uint64_t number);
int is(enum kind kind, const void *handle);
uint64_t number_of(const void *handle);

/* A GPU instance (GI) or compute instance (CI) that was found by its serial number, with its board. */
struct found {
    struct board *board;
    struct gi *gi;
    struct ci *ci;
};

/* Returns the index of a board; -1 for none. */
int index_of(const struct board *board);

/* Returns the board of a handle; 0 if it is none of a board. */
struct board *board_of(const void *handle);

/* Returns the instance of a handle; its fields are 0 if there is none. */
struct found find(const void *handle);

/* Returns the instance of a handle like `find`, unless the call has failed. */
struct found found_by(const struct call *call, const void *handle);

/* Returns OK if MIG is on, and otherwise the code of a call that needs it. */
int needs_mig(const struct board *board);

#endif
