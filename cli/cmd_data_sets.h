/* Commands of `advprop data` about data sets; cmd_data.c has the table. */
#ifndef APD_CLI_CMD_DATA_SETS_H
#define APD_CLI_CMD_DATA_SETS_H

int apd_cmd_data_index(int argc, char **argv);
int apd_cmd_data_verify(int argc, char **argv);
int apd_cmd_data_stat(int argc, char **argv);
int apd_cmd_data_pack(int argc, char **argv);
int apd_cmd_data_cat(int argc, char **argv);
int apd_cmd_data_corrupt(int argc, char **argv);

#endif
