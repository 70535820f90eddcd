#include "layer.h"
#include "vector_avx512.h"

#include "vector.h"
#include "product.h"
#include "ahead.h"
#include "winograd.h"
#include "direct.h"
#include "settle.h"

const ab_set ab_set_avx512 = AB_SET("avx512");
