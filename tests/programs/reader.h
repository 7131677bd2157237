/* A reader of symbol tables in memory, as profilers and hooking tools bring one along. */
#pragma once
#include <link.h>
#include <string.h>

/* The address of a function in a loaded object; NULL if it does not export it. */
static inline void *read_symbol(const struct link_map *object, const char *name)
{
    const ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;

    for (const ElfW(Dyn) *entry = object->l_ld; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_SYMTAB)
            symbols = (const ElfW(Sym) *)entry->d_un.d_ptr;
        if (entry->d_tag == DT_STRTAB)
            strings = (const char *)entry->d_un.d_ptr;
    }
    /* In every object the strings come after the symbols. */
    for (const ElfW(Sym) *symbol = symbols; (const char *)symbol < strings; symbol++)
        if (symbol->st_shndx != SHN_UNDEF && ELF64_ST_TYPE(symbol->st_info) == STT_FUNC &&
            strcmp(strings + symbol->st_name, name) == 0)
            return (void *)(object->l_addr + symbol->st_value);
    return NULL;
}

/* The loaded object whose path has this in it. */
static inline const struct link_map *loaded(const char *part)
{
    for (const struct link_map *object = _r_debug.r_map; object; object = object->l_next)
        if (strstr(object->l_name, part))
            return object;
    return NULL;
}
