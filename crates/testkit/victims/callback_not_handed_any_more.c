//#ExpectVerdict: review
//#ExpectReason: callback-handed-otherwise
/* One of two places does not get a function any more: what old code attached there stays. */
#if NEW
#define BEGIN attach(1, thrice);
#else
#define BEGIN attach(1, thrice); attach(3, thrice);
#endif
#include "callback_handed_otherwise.c"
