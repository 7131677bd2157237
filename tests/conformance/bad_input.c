#include "promises.h"
const struct promise bad_input[] = { { 0 } };
