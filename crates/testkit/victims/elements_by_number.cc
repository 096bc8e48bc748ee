//#Kind: library
//#ExpectVerdict: safe
//#ExpectChanged: table_offset
//#ExpectChanged: table_set
//#Flags: -fno-exceptions -fno-rtti
/* Two functions begin to check the number of an element, so that it is multiplied before the
 * array's address is added. That address counts nothing: it is where the elements begin. */
#include <cstdlib>

struct Entry {
    int offset, generation, kind;
};

struct Table {
    Entry *entries;
    int size, room;

    Entry *get(int number) {
#if NEW
        if (number < 0 || number >= size)
            return nullptr;
#endif
        return &entries[number];
    }

    bool grow(int to) {
        if (to > room) {
            Entry *more = static_cast<Entry *>(realloc(entries, to * sizeof *more));
            if (!more)
                return false;
            for (int each = room; each < to; each++)
                more[each] = Entry{-1, 0, 0};
            entries = more;
            room = to;
        }
        size = to;
        return true;
    }

    bool set(int number, int generation, int offset) {
        if (number >= size && !grow(number + 1))
            return false;
        Entry *entry = get(number);
#if NEW
        if (!entry)
            return false;
#endif
        if (entry->offset != -1 && generation < entry->generation)
            return false;
        *entry = Entry{offset, generation, 1};
        return true;
    }

    int offset(int number) {
        Entry *entry = get(number);
#if NEW
        if (!entry)
            return -1;
#endif
        return entry->offset;
    }
};

extern "C" int table_set(Table *table, int number, int generation, int offset) {
    return table->set(number, generation, offset);
}

extern "C" int table_offset(Table *table, int number) {
    return table->offset(number);
}
