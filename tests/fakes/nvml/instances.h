/* Profiles of GPU instances. */

#ifndef INSTANCES_H
#define INSTANCES_H

#include "calls.h"

/* Returns the profile of a shape of a board, by the shape's index. */
profile_t describe(const struct board *board, unsigned index);

#endif
