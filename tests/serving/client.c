/* Run an exported model on the content of one file, with TensorFlow's C library only.
 *
 *   client EXPORT INPUT_OPERATION OUTPUT_OPERATION OUTPUT_INDEX IMAGE
 *
 * Prints the values of a float32 output, one per line.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

static void check(TF_Status* status) {
  if (TF_GetCode(status) != TF_OK) {
    fprintf(stderr, "%s\n", TF_Message(status));
    exit(1);
  }
}

static char* read_file(const char* path, size_t* size) {
  FILE* file = fopen(path, "rb");
  if (!file) exit(2);
  fseek(file, 0, SEEK_END);
  *size = (size_t)ftell(file);
  rewind(file);
  char* content = malloc(*size);
  if (fread(content, 1, *size, file) != *size) exit(2);
  fclose(file);
  return content;
}

static TF_Tensor* batch_of_one(const char* bytes, size_t size) {
  const int64_t shape[] = {1};
  TF_Tensor* tensor = TF_AllocateTensor(TF_STRING, shape, 1, sizeof(TF_TString));
  TF_TString* string = TF_TensorData(tensor);
  TF_StringInit(string);
  TF_StringCopy(string, bytes, size);
  return tensor;
}

int main(int count, char** arguments) {
  if (count != 6) return 2;
  const char* tags[] = {"serve"};
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  TF_Session* session = TF_LoadSessionFromSavedModel(options, NULL, arguments[1], tags, 1, graph, NULL, status);
  check(status);
  TF_Output input = {TF_GraphOperationByName(graph, arguments[2]), 0};
  TF_Output output = {TF_GraphOperationByName(graph, arguments[3]), atoi(arguments[4])};
  if (!input.oper || !output.oper) return 2;
  size_t size;
  char* bytes = read_file(arguments[5], &size);
  TF_Tensor* request = batch_of_one(bytes, size);
  TF_Tensor* result = NULL;
  TF_SessionRun(session, NULL, &input, &request, 1, &output, &result, 1, NULL, 0, NULL, status);
  check(status);
  const float* values = TF_TensorData(result);
  const size_t length = TF_TensorByteSize(result) / sizeof(float);
  for (size_t index = 0; index < length; ++index) printf("%.9g\n", values[index]);
  TF_DeleteTensor(request);
  TF_DeleteTensor(result);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  free(bytes);
  return 0;
}
