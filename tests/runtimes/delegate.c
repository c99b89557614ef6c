/* A TFLite delegate that takes the operators with the code TAKES and computes them as the exponential function.

   The structs are those of LiteRT's C interface up to the last member that is used here. */

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct { int size; int data[]; } IntArray;

typedef struct {
    int type;
    float *data;
    IntArray *dims;
    struct { float scale; int32_t zero_point; } params;
    int allocation_type;
    size_t bytes;
    const void *allocation;
    const char *name;
    void *delegate;
    int buffer_handle;
    bool data_is_stale, is_variable;
    struct { int type; void *params; } quantization;
    void *sparsity;
    const IntArray *dims_signature;
} Tensor;

typedef struct { IntArray *inputs, *outputs; } Node;

typedef struct Context Context;
typedef struct Delegate Delegate;

typedef struct {
    void *(*init)(Context *, const char *, size_t);
    void (*free)(Context *, void *);
    int (*prepare)(Context *, Node *);
    int (*invoke)(Context *, Node *);
    const char *(*profiling_string)(const Context *, const Node *);
    int32_t builtin_code;
    const char *custom_name;
    int version;
    void *registration_external;
    void *async_kernel;
    uint64_t inplace_operator;
} Registration;

struct Context {
    size_t tensors_size;
    int (*get_execution_plan)(Context *, IntArray **);
    Tensor *tensors;
    void *impl;
    void *resize_tensor, *report_error, *add_tensors;
    int (*get_node)(Context *, int, Node **, Registration **);
    int (*replace)(Context *, Registration, const IntArray *, Delegate *);
};

struct Delegate {
    void *data;
    int (*prepare)(Context *, Delegate *);
    void *copy_from, *copy_to, *free_buffer;
    int64_t flags;
    void *opaque_builder;
};

static int compute(Context *context, Node *node) {
    const Tensor *input = &context->tensors[node->inputs->data[0]];
    Tensor *output = &context->tensors[node->outputs->data[0]];
    for (size_t i = 0; i < output->bytes / sizeof(float); i++) output->data[i] = expf(input->data[i]);
    return 0;
}

static int take(Context *context, Delegate *delegate) {
    IntArray *plan;
    if (context->get_execution_plan(context, &plan)) return 1;
    IntArray *mine = malloc(sizeof(IntArray) + plan->size * sizeof(int));
    mine->size = 0;
    for (int i = 0; i < plan->size; i++) {
        Node *node;
        Registration *registration;
        if (context->get_node(context, plan->data[i], &node, &registration)) return 1;
        if (registration->builtin_code == TAKES) mine->data[mine->size++] = plan->data[i];
    }
    Registration kernel = {.invoke = compute, .custom_name = "exponential", .version = 1};
    int status = mine->size ? context->replace(context, kernel, mine, delegate) : 0;
    free(mine);
    return status;
}

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
    (void)keys, (void)values, (void)count, (void)report;
    Delegate *delegate = calloc(1, sizeof(Delegate));
    delegate->prepare = take;
    return delegate;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }
