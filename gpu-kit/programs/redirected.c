/* Whether the driver's own symbol table leads to somebody else once the driver is in use, and where that table lies:
 * redirected=1 or 0, segment=r--, rw- or r-x, relro=1 or 0. */
#include "common.h"
#include <elf.h>
#include <link.h>

static const char *wanted = "cuMemAlloc_v2";

static int look(struct dl_phdr_info *object, size_t size, void *found)
{
    (void)size;
    if (!strstr(object->dlpi_name, "libcuda.so"))
        return 0;
    const ElfW(Sym) *symbols = NULL;
    const char *names = NULL;
    for (int i = 0; i < object->dlpi_phnum; i++)
        if (object->dlpi_phdr[i].p_type == PT_DYNAMIC)
            for (ElfW(Dyn) *entry = (void *)(object->dlpi_addr + object->dlpi_phdr[i].p_vaddr); entry->d_tag; entry++) {
                symbols = entry->d_tag == DT_SYMTAB ? (void *)entry->d_un.d_ptr : symbols;
                names = entry->d_tag == DT_STRTAB ? (void *)entry->d_un.d_ptr : names;
            }
    /* Linkers put the names behind the symbols. */
    const ElfW(Sym) *symbol = symbols;
    while (symbol && (const char *)symbol < names && strcmp(names + symbol->st_name, wanted) != 0)
        symbol++;
    if (!symbol || (const char *)symbol >= names)
        return 0;
    ElfW(Addr) leads = object->dlpi_addr + symbol->st_value, table = (ElfW(Addr))symbols;
    int own = 0, relro = 0;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        ElfW(Addr) start = object->dlpi_addr + part->p_vaddr, end = start + part->p_memsz;
        if (part->p_type == PT_GNU_RELRO)
            relro |= start <= table && table < end;
        if (part->p_type != PT_LOAD)
            continue;
        own |= start <= leads && leads < end;
        if (start <= table && table < end)
            printf("segment=%c%c%c\n", part->p_flags & PF_R ? 'r' : '-', part->p_flags & PF_W ? 'w' : '-',
                   part->p_flags & PF_X ? 'x' : '-');
    }
    say("relro", relro);
    say("redirected", !own);
    return *(int *)found = 1;
}

int main(void)
{
    int found = 0;
    open_device();
    dl_iterate_phdr(look, &found);
    must(!found);
    return 0;
}
