//#ExpectVerdict: review
//#ExpectReason: callback-handed-otherwise
/* The same, stored where it is kept. */
#define STORES
#if NEW
#define BEGIN held[3] = thrice; held[1] = next;
#else
#define BEGIN held[1] = thrice; held[3] = next;
#endif
#include "callback_handed_otherwise.c"
