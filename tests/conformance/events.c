#include "promises.h"
const struct promise events[] = { { 0 } };
