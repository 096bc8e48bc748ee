//#Kind: library
//#ExpectVerdict: review
//#ExpectReason: label-address
/* Direct threaded code: programs are kept as addresses of labels. A check is added to one
 * instruction. */
struct prog {
    void *code[64];
    long arg[64];
    int n;
};

long run(struct prog *p, const char *source, long *stack) {
    if (source) {
        int i = 0;
        for (; *source; source++, i++)
            p->code[i] = *source == '+'   ? &&add
                         : *source == '*' ? &&mul
                         : *source == '.' ? &&end
                                          : &&push,
            p->arg[i] = *source - '0';
        p->n = i;
        return 0;
    }
    long *sp = stack;
    int pc = 0;
    goto *p->code[pc];
push:
#if NEW
    if (sp >= stack + 60)
        return -1;
#endif
    *sp++ = p->arg[pc];
    pc++;
    goto *p->code[pc];
add:
    sp--;
    sp[-1] += sp[0];
    pc++;
    goto *p->code[pc];
mul:
    sp--;
    sp[-1] *= sp[0];
    pc++;
    goto *p->code[pc];
end:
    return sp[-1];
}
