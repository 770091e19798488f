/* The boards that the stand-in can simulate, with the profiles that their drivers report. */

#ifndef BOARDS_H
#define BOARDS_H

#define MAX_STARTS 7
#define MAX_PROFILES 12

/* The part of a GPU instance profile that all boards of a geometry share. `starts` is in the order in which a driver
 * tries them when it is given no placement. Compute instances have at most `compute` slices. */
struct shape {
    unsigned nvml_enum, id, compute, memory, max, media;
    unsigned count, starts[MAX_STARTS];
};

struct geometry {
    unsigned compute, memory;
    unsigned count;
    struct shape shapes[MAX_PROFILES];
};

static const struct geometry SEVEN = {
    7, 8, 7,
    {
        {0, 19, 1, 1, 7, 0, 7, {6, 4, 5, 0, 1, 2, 3}},
        {7, 20, 1, 1, 1, 1, 7, {6, 4, 5, 0, 1, 2, 3}},
        {9, 15, 1, 2, 4, 0, 4, {4, 0, 2, 6}},
        {1, 14, 2, 2, 3, 0, 3, {4, 0, 2}},
        {2, 9, 3, 4, 2, 0, 2, {4, 0}},
        {3, 5, 4, 4, 1, 0, 1, {0}},
        {4, 0, 7, 8, 1, 0, 1, {0}},
    },
};

static const struct geometry SEVEN_WITHOUT_MEDIA = {
    7, 8, 6,
    {
        {0, 19, 1, 1, 7, 0, 7, {6, 4, 5, 0, 1, 2, 3}},
        {9, 15, 1, 2, 4, 0, 4, {4, 0, 2, 6}},
        {1, 14, 2, 2, 3, 0, 3, {4, 0, 2}},
        {2, 9, 3, 4, 2, 0, 2, {4, 0}},
        {3, 5, 4, 4, 1, 0, 1, {0}},
        {4, 0, 7, 8, 1, 0, 1, {0}},
    },
};

static const struct geometry FOUR = {
    4, 4, 5,
    {
        {0, 14, 1, 1, 4, 0, 4, {0, 1, 2, 3}},
        {7, 21, 1, 1, 1, 1, 4, {0, 1, 2, 3}},
        {1, 5, 2, 2, 2, 0, 2, {0, 2}},
        {8, 6, 2, 2, 1, 1, 2, {0, 2}},
        {3, 0, 4, 4, 1, 0, 1, {0}},
    },
};

/* A board. `gb` and `mib` are indexed by memory slices, `sm` by slice kind: 1g, 1g with double memory, 2g, 3g, 4g, 7g.
 * A board whose geometry is NULL does not support MIG. */
struct model {
    const char *name, *nvml_name;
    const struct geometry *geometry;
    int reset; /* A change of the MIG mode needs a reset of the GPU. */
    unsigned gb[9], mib[9], sm[6];
};

#define SIZES(one, two, four, eight) {[1] = one, [2] = two, [4] = four, [8] = eight}
#define AMPERE_SM {14, 14, 28, 42, 56, 98}
#define HOPPER_SM {16, 26, 32, 60, 64, 132}

/* The figures of B200's 3g, 4g and 7g are made up, because no driver output is known for them. `cpu` is the catalog's
 * board for a processor, which no driver reports: it lets deployments use NVML and still serve without a GPU. */
static const struct model MODELS[] = {
    {"A100-40GB", "NVIDIA A100-SXM4-40GB", &SEVEN, 1, SIZES(5, 10, 20, 40), SIZES(4864, 9856, 19968, 40192), AMPERE_SM},
    {"A100-80GB", "NVIDIA A100-SXM4-80GB", &SEVEN, 1, SIZES(10, 20, 40, 80), SIZES(9728, 19968, 40192, 80896), AMPERE_SM},
    {"H100-80GB", "NVIDIA H100 80GB HBM3", &SEVEN, 0, SIZES(10, 20, 40, 80), SIZES(9984, 20096, 40448, 81152), HOPPER_SM},
    {"H100-94GB", "NVIDIA H100 NVL", &SEVEN, 0, SIZES(12, 24, 47, 94), SIZES(11008, 22144, 47488, 95360), HOPPER_SM},
    {"GH200-96GB", "NVIDIA GH200 480GB", &SEVEN, 0, SIZES(12, 24, 48, 96), SIZES(11264, 23552, 47616, 95232), HOPPER_SM},
    {"H200-141GB", "NVIDIA H200", &SEVEN, 0, SIZES(18, 35, 71, 141), SIZES(16384, 33024, 71168, 143104), HOPPER_SM},
    {"B200-180GB", "NVIDIA B200", &SEVEN, 0, SIZES(23, 45, 90, 180), SIZES(20992, 45312, 90624, 182272), {18, 30, 36, 70, 72, 142}},
    {"A30-24GB", "NVIDIA A30", &FOUR, 1, SIZES(6, 12, 24, 0), SIZES(5952, 11968, 24000, 0), AMPERE_SM},
    {"L4", "NVIDIA L4", 0, 0, {0}, {0}, {0}},
    {"cpu", "stand-in for a processor", &SEVEN_WITHOUT_MEDIA, 0, SIZES(8, 16, 32, 64), SIZES(8192, 16384, 32768, 65536), AMPERE_SM},
};

#define N_MODELS ((int)(sizeof MODELS / sizeof *MODELS))

/* Returns the number of multiprocessors of a board's profile. */
static inline unsigned multiprocessors(const struct model *model, const struct shape *shape) {
    switch (shape->compute) {
    case 1: return model->sm[shape->memory == 2 ? 1 : 0];
    case 2: return model->sm[2];
    case 3: return model->sm[3];
    case 4: return model->sm[4];
    default: return model->sm[5];
    }
}

#endif
