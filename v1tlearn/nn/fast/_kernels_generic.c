/* Without any instruction of a kind of processor: compilers make of these vectors what they can. */

#define VARIANT generic
#define TARGET
#define RUNS 1
#define LANES 4
#define HEIGHT 6
#define VECTORS 2
#define FMA(a, b, c) ((a) * (b) + (c))
#include "_kernels_variant.h"
