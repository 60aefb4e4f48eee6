/* A network in flash, decoded into memory, without an operating system: what its size is measured of.
 *
 *     clang --target=thumbv7em-none-eabi -mcpu=cortex-m4 -mfloat-abi=hard -Oz -ffreestanding \
 *         -ffunction-sections -fdata-sections -Iedge/c/bare -Iedge/c -Icompressor/coding/core -c ...
 *     ld.lld --gc-sections -e weights ... */
#include "dcz.h"

int weights(const void *flash, size_t flash_size, void *out, size_t out_size, void *memory,
            size_t memory_size);

/* All tensors, one after the other, each aligned to 8. */
int weights(const void *flash, size_t flash_size, void *out, size_t out_size, void *memory,
            size_t memory_size) {
    static dcz_file file;
    static dcz_tensor tensor;
    const size_t kept = (dcz_open_memory(flash, flash_size) + 7) / 8 * 8;
    uint8_t *at = out;
    int code = dcz_open(&file, flash, flash_size, 0, memory, memory_size);
    while (!code && dcz_next(&file, &tensor)) {
        const size_t size = (tensor.bytes + 7) / 8 * 8;
        if (size > out_size) return DCZ_NO_ROOM;
        code = dcz_dense(&file, &tensor, at, size, (uint8_t *)memory + kept, memory_size - kept);
        at += size;
        out_size -= size;
    }
    return code;
}
