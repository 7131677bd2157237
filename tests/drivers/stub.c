/* What programs are linked to where no driver is: every call answers that this is no driver. */
#define FORWARD(name)                                                                                     \
    int name(void)                                                                                        \
    {                                                                                                     \
        return 34;                                                                                        \
    }
#include FORWARDED
