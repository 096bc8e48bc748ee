//#ExpectVerdict: review
//#ExpectReason: callback-handed-otherwise
/* What goes along with a function was a number, and is calculated now. */
#if NEW
#define BEGIN attach(number & 1, thrice);
#else
#define BEGIN attach(1, thrice);
#endif
#include "callback_handed_otherwise.c"
