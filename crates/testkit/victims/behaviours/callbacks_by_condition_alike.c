//#ExpectVerdict: review
//#ExpectReason: callback-by-place
//#Exchange: 5 | 15 | 15
//#Exchange: -300 | -900 | -899
/* The same, and each function is so like its older version that there is no doubt which is
 * which; only whether the old program's state holds the one that the new one's would. */
#include "answers.h"
#include "unlike.h"

#define MORE(number, by) more_##by(number)
#include "callbacks_by_condition.c"
