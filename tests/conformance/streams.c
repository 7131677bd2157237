#include "promises.h"
const struct promise streams[] = { { 0 } };
