#include "layer.h"
#include "vector_neon.h"

#include "vector.h"
#include "product.h"
#include "ahead.h"
#include "winograd.h"
#include "direct.h"
#include "settle.h"

const ab_set ab_set_neon = AB_SET("neon");
