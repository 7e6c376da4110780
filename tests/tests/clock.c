/* Whether the wall clock is kept, as the kernel tells a process that has this preloaded: by a file, since a machine's clock is every node's.
   The kernel is asked first, so what forbids the call forbids it here. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <sys/timex.h>

int adjtimex(struct timex *timex)
{
    int (*asked)(struct timex *) = (int (*)(struct timex *))dlsym(RTLD_NEXT, "adjtimex");
    int state = asked(timex);
    if (state < 0)
        return state;
    FILE *file = fopen("/run/clock-kept", "re");
    int kept = file != NULL && fgetc(file) == 'y';
    if (file != NULL)
        fclose(file);
    timex->status = kept ? timex->status & ~STA_UNSYNC : timex->status | STA_UNSYNC;
    return kept ? TIME_OK : TIME_ERROR;
}
