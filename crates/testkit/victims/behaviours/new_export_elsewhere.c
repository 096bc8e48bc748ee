//#ExpectVerdict: safe
//#ExpectOutcome: not-applied import-unresolved
//#Flags: -rdynamic
//#Images: program one
//#Exchange: 5 | 5 5 | 6 5
/* The program has a function of the name that its library exports from now on: the loader
 * would have taken that one. */
#define CLAMP int clamp(int number) { return -number; }
#include "new_export.c"
