//#ExpectVerdict: refused
//#ExpectRefusal: role-unproven
/* Code that changed hands out a function that changed too, together with another number
 * than before: whether it still has the same role is not told by the place. */
#define BY (NEW ? 3.75 : 2.75)
#include "callback_beside_a_constant.c"
