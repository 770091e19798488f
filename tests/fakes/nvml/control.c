/* Functions by which tests control the stand-in. Each returns 0 on success. */

#include <stdio.h>
#include <string.h>

#include "state.h"

#define API __attribute__((visibility("default")))

/* Creates a machine with these boards, such as `A100-80GB,L4`. If `mig` is set, MIG is on where boards support it. */
API int standin_create(const char *path, const char *models, int mig) {
    struct mapping mapping;
    char names[1024];
    if (!map_state(&mapping, path, 1)) return 1;
    snprintf(names, sizeof names, "%s", models);
    mapping.state->loaded = 1;
    for (char *name = strtok(names, ","); name; name = strtok(0, ",")) {
        struct board *board = &mapping.state->boards[mapping.state->n_boards++];
        board->model = -1;
        for (int i = 0; i < N_MODELS; i++)
            if (strcmp(MODELS[i].name, name) == 0) board->model = i;
        if (board->model < 0 || mapping.state->n_boards == MAX_BOARDS) return 2;
        new_uuid("GPU", board->uuid);
        board->counting_since_ms = now_ms();
        board->current = board->pending = mig && MODELS[board->model].geometry;
    }
    mapping.state->magic = MAGIC;
    unmap_state(&mapping);
    return 0;
}

static int open_state(struct mapping *mapping, const char *path) {
    if (!map_state(mapping, path, 0)) return 0;
    lock_state(mapping);
    return 1;
}

static int close_state(struct mapping *mapping, int status) {
    unlock_state(mapping);
    unmap_state(mapping);
    return status;
}

API int standin_delays(const char *path, unsigned create_ms, unsigned destroy_ms) {
    struct mapping mapping;
    if (!open_state(&mapping, path)) return 1;
    mapping.state->create_ms = create_ms;
    mapping.state->destroy_ms = destroy_ms;
    return close_state(&mapping, 0);
}

API int standin_deny(const char *path, unsigned denied) {
    struct mapping mapping;
    if (!open_state(&mapping, path)) return 1;
    mapping.state->denied = denied;
    return close_state(&mapping, 0);
}

/* Adds a fault (see `struct fault`). An empty name removes all faults. */
API int standin_fault(const char *path, const char *call, unsigned nth, int action, int code) {
    struct mapping mapping;
    if (!open_state(&mapping, path)) return 1;
    if (!*call) mapping.state->n_faults = 0;
    else {
        if (mapping.state->n_faults == MAX_FAULTS) return close_state(&mapping, 2);
        struct fault *fault = &mapping.state->faults[mapping.state->n_faults++];
        *fault = (struct fault){.nth = nth, .action = (enum action)action, .code = code};
        snprintf(fault->call, sizeof fault->call, "%s", call);
    }
    return close_state(&mapping, 0);
}

/* Creates another owner's GPU instance of a profile (NVML's number), with a compute instance unless `half` is set. */
API int standin_foreign(const char *path, int index, unsigned nvml_enum, unsigned start, int half, char *uuid) {
    struct mapping mapping;
    if (!open_state(&mapping, path)) return 1;
    struct board *board = &mapping.state->boards[index];
    const struct geometry *geometry = MODELS[board->model].geometry;
    for (unsigned i = 0; geometry && i < geometry->count; i++) {
        if (geometry->shapes[i].nvml_enum != nvml_enum || !can_place(board, i, start)) continue;
        struct gi *gi = place_gi(mapping.state, board, i, start);
        const unsigned compute = geometry->shapes[i].compute;
        const unsigned profile = geometry->shapes[i].nvml_enum == 9 ? 7 : compute == 7 ? 4 : compute - 1;
        if (!half) strcpy(uuid, place_ci(mapping.state, gi, profile, 0, compute)->uuid);
        return close_state(&mapping, 0);
    }
    return close_state(&mapping, 2);
}

/* Makes a process hold an instance or a board. A pid of 0 removes all such holders. */
API int standin_hold(const char *path, const char *uuid, int pid) {
    struct mapping mapping;
    if (!open_state(&mapping, path)) return 1;
    if (!pid) mapping.state->n_holders = 0;
    else {
        struct holder *holder = &mapping.state->holders[mapping.state->n_holders++];
        holder->pid = pid;
        snprintf(holder->uuid, sizeof holder->uuid, "%s", uuid);
    }
    return close_state(&mapping, 0);
}

/* Makes a monitoring agent, which NVML does not name, hold the GPU instance at this start for some time. */
API int standin_agent(const char *path, int index, unsigned start, unsigned ms) {
    struct mapping mapping;
    if (!open_state(&mapping, path)) return 1;
    int status = 2;
    for (int g = 0; g < MAX_GIS; g++) {
        struct gi *gi = &mapping.state->boards[index].gi[g];
        if (gi->serial && gi->start == start) gi->agent_until_ms = now_ms() + ms, status = 0;
    }
    return close_state(&mapping, status);
}

/* Resets a GPU: its instances are lost, and the pending mode takes effect. */
API int standin_reset(const char *path, int index) {
    struct mapping mapping;
    if (!open_state(&mapping, path)) return 1;
    struct board *board = &mapping.state->boards[index];
    memset(board->gi, 0, sizeof board->gi);
    board->current = board->pending;
    return close_state(&mapping, 0);
}

/* Adds to the energy of a GPU. */
API int standin_consume(const char *path, int index, unsigned joules) {
    struct mapping mapping;
    if (!open_state(&mapping, path)) return 1;
    mapping.state->boards[index].consumed_mj += 1000ull * joules;
    return close_state(&mapping, 0);
}

/* Unloads the driver, and loads it again if `load_again` is set. All instances are lost, and so is the MIG mode of
 * boards that need no reset to change it. */
API int standin_unload(const char *path, int load_again) {
    struct mapping mapping;
    if (!open_state(&mapping, path)) return 1;
    for (int b = 0; b < mapping.state->n_boards; b++) {
        struct board *board = &mapping.state->boards[b];
        memset(board->gi, 0, sizeof board->gi);
        board->counting_since_ms = now_ms();
        board->consumed_mj = 0;
        if (!MODELS[board->model].reset) board->pending = 0;
        board->current = board->pending;
    }
    mapping.state->loaded = (unsigned)load_again;
    return close_state(&mapping, 0);
}
