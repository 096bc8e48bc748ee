//#ExpectVerdict: safe
//#ExpectChanged: clamp
//#Flags: -shared -fPIC -nostdlib
/* A plug-in: no soname, no interpreter, no library that it names. It is no
 * static program for all that: whoever loads it binds it. */
extern int host_limit(void);

__attribute__((noipa)) int clamp(int value) {
    int limit = host_limit();
    return value > limit ? limit : NEW && value < 0 ? 0 : value;
}

int accept(int value) { return clamp(value) + 1; }
