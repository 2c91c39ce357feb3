#ifdef __aarch64__
#include <arm_neon.h>

#define VARIANT neon
#define TARGET
#define RUNS 1 /* all of these processors have it */
#define LANES 4
#define HEIGHT 6
#define VECTORS 4
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define MAX vmaxq_f32
#define SUM vaddvq_f32
#define LARGEST vmaxvq_f32
#include "_kernels_variant.h"
#endif
