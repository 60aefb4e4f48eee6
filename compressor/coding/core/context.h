/* Context-mixed arithmetic coding of signed levels; docs/format.md, "Context mixing".
 *
 * Plain buffers in, plain buffers out: no allocation, no input or output, no global state. A matrix of
 * rows x columns levels, row-major; its columns are input channels of plane_height x plane_width
 * kernel positions. Levels are -negative..positive. */
#ifndef DCZ_CONTEXT_H
#define DCZ_CONTEXT_H

#include <stddef.h>
#include <stdint.h>

/* DCZ_RANGE: a level is out of range. DCZ_END: the stream does not end where it must. DCZ_NO_ROOM: the
 * buffer for the output is too small. DCZ_MISUSE: arguments that no caller may give. */
enum { DCZ_OK = 0, DCZ_RANGE = 1, DCZ_END = 2, DCZ_NO_ROOM = 3, DCZ_MISUSE = 4 };

typedef struct {
    uint64_t rows, columns;
    uint64_t plane_height, plane_width; /* their product divides columns */
    uint32_t positive, negative;        /* largest magnitude of either sign, each at most 65536 */
    uint32_t rate;                      /* learning rate of the mixer, 1 to 64 */
} dcz_context_shape;

/* Bytes of scratch that both functions need for a matrix of this shape, aligned to 8. */
size_t dcz_context_workspace(const dcz_context_shape *shape);

/* Write levels to out; *written says how many bytes it took. DCZ_NO_ROOM: over capacity. */
int dcz_context_encode(const dcz_context_shape *shape, const int32_t *levels, uint8_t *out,
                       size_t capacity, size_t *written, void *workspace, size_t workspace_size);

/* Read exactly length bytes of stream to levels. DCZ_RANGE or DCZ_END: no encoder wrote this. */
int dcz_context_decode(const dcz_context_shape *shape, const uint8_t *stream, size_t length,
                       int32_t *levels, void *workspace, size_t workspace_size);

#endif
