/* The instruction sets that this processor has, the fastest first, then NULL. */
#ifndef AB_SETS_H
#define AB_SETS_H

#include "layer.h"

const ab_set *const *ab_sets(void);

#endif
